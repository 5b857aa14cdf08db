"""`quire run-batch`: runs a file of requests and writes a file of answers.

The flags beside its own are those of `quire serve`; the run is `server.batches.offline`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import replace

from quire.cli.serving import check_model, notes, set_up_log
from quire.config.cli import Parser, read_serve
from quire.protocol.errors import QuireError, SettingsError

logger = logging.getLogger("quire")

_PROG = "quire run-batch"


def _own_parser() -> Parser:
    parser = Parser(
        prog=_PROG,
        allow_abbrev=False,
        description="Runs the requests of a file, one JSON object a line, and writes their answers.",
        epilog="All flags of quire serve that set the model and the engine can be given too.",
    )
    parser.add_argument(
        "-i", "--input-file", required=True, metavar="FILE", help="file or http(s) URL to read"
    )
    parser.add_argument(
        "-o", "--output-file", required=True, metavar="FILE",
        help="file to write, or http(s) URL to upload to with PUT",
    )  # fmt: skip
    parser.add_argument(
        "--output-tmp-dir", metavar="DIR", help="folder for what is down- or uploaded"
    )
    parser.add_argument(
        "--enable-metrics", action="store_true", help="serve /metrics while the lines run"
    )
    parser.add_argument(
        "--host", "--url", default="127.0.0.1", metavar="HOST", help="address of /metrics"
    )
    parser.add_argument("--port", type=int, default=8000, help="port of /metrics")
    return parser


def main(argv: Sequence[str]) -> int:
    """Runs the file; returns the exit code: 0 done, 1 the engine or the upload failed, 2 wrong input."""
    own, rest = _own_parser().parse_known_args(list(argv))
    options = read_serve(rest, prog=_PROG)
    try:
        set_up_log()
        check_model(options.settings)
        for note in notes(options.notes):
            logger.warning("%s", note)
        from quire.server.batches.offline import RunBatch, run_batch
        from quire.server.launch import make_async_llm

        what = RunBatch(
            input_file=own.input_file,
            output_file=own.output_file,
            output_tmp_dir=own.output_tmp_dir,
            metrics_at=(own.host, own.port) if own.enable_metrics else None,
        )
        config = replace(options.server, max_queue_wait=0.0, api_key=[], ui=False)
        return run_batch(options.settings, config, what, make_async_llm)
    except SettingsError as error:
        print(f"{_PROG}: error: {error}", file=sys.stderr)
        return 2
    except QuireError as error:
        print(f"{_PROG}: error: {error}", file=sys.stderr)
        return 1
