"""The flags of `quire bench serve`.

What they do is `bench.serve`; those that choose the prompts are `bench.dataset_flags`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from quire.bench.arguments import add_switch, make_parser, number, refuse, whole
from quire.bench.dataset_flags import add_dataset_flags
from quire.bench.serve_report import METRICS
from quire.config.cli import Parser
from quire.protocol.errors import SettingsError

_REFUSED = {
    "--use-beam-search": "beam search over HTTP is not served",
    "--lora-modules --lora-assignment": "adapters are not served",
    "--self-timed": "arrival times do not come from the data set; use --request-rate",
    "--probe-request-rate": "there are no side probes; run a second quire bench serve",
    "--plot-timeline --timeline-itl-thresholds --plot-dataset-stats": "no pictures are drawn; "
    "--save-result --save-detailed writes the numbers",
    "--skip-tokenizer-init": "prompts are texts; name a tokenizer's folder with --tokenizer",
    "--tokenizer-mode": "the tokenizer is read from tokenizer.json",
    "--trust-remote-code": "no code of a checkpoint is run here",
}


def make() -> Parser:
    """The parser."""
    parser = make_parser("serve", "Sends requests to a running server and reports their times.")
    _add_target(parser)
    add_dataset_flags(parser, num_prompts=1000)
    _add_load(parser)
    _add_sampling(parser)
    _add_report(parser)
    refuse(parser, _REFUSED)
    return parser


def _add_target(parser: Parser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument(
        "--backend",
        "--endpoint-type",
        default="openai",
        help="openai (vllm is the same word) for /v1/completions, openai-chat for /v1/chat/completions",
    )
    group.add_argument("--base-url", help="as http://host:8000; wins over --host and --port")
    group.add_argument("--host", default="127.0.0.1")
    group.add_argument("--port", type=whole(1), default=8000)
    group.add_argument("--endpoint", help="path; default: that of the backend")
    group.add_argument("--header", nargs="+", metavar="NAME=VALUE", default=[])
    group.add_argument("--api-key", help="the server's key; default: OPENAI_API_KEY")
    add_switch(group, "--insecure", "do not check the server's certificate")
    group.add_argument("--model", help="default: the first model that the server lists")
    group.add_argument("--served-model-name", help="the name in requests; default: --model")
    group.add_argument("--tokenizer", help="folder of a tokenizer; default: the model's")
    group.add_argument(
        "--ready-check-timeout-sec", type=number(), default=0.0,
        help="first wait so long for the server to answer a request; 0 does not look",
    )  # fmt: skip


def _add_load(parser: Parser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument("--seed", type=whole(0), default=0, help="of prompts and arrivals")
    group.add_argument(
        "--request-rate",
        type=number(above=True),
        default=float("inf"),
        help="requests a second; inf is all at once",
    )
    group.add_argument(
        "--burstiness",
        type=number(above=True),
        default=1.0,
        help="1 Poisson, below bursts, above evener",
    )
    group.add_argument("--max-concurrency", type=whole(1), help="most requests in flight")
    group.add_argument("--ramp-up-strategy", choices=("linear", "exponential"))
    group.add_argument("--ramp-up-start-rps", type=number(above=True), metavar="RPS")
    group.add_argument("--ramp-up-end-rps", type=number(above=True), metavar="RPS")


def _add_sampling(parser: Parser) -> None:
    group = parser.add_argument_group("fields of the requests")
    add_switch(group, "--ignore-eos", "every answer has its full length")
    for name in (
        "temperature",
        "top-p",
        "min-p",
        "frequency-penalty",
        "presence-penalty",
        "repetition-penalty",
    ):
        group.add_argument(f"--{name}", type=float, metavar="X")
    group.add_argument("--top-k", type=int, metavar="N")
    group.add_argument("--logprobs", type=whole(0), metavar="N")
    group.add_argument("--extra-body", type=_object, default={}, metavar="JSON")
    group.add_argument("--chat-template-kwargs", type=_object, default={}, metavar="JSON")
    group.add_argument("--request-id-prefix", default="", help="X-Request-Id is this and a number")


def _add_report(parser: Parser) -> None:
    group = parser.add_argument_group("report")
    group.add_argument(
        "--percentile-metrics", default="ttft,tpot,itl", help="of ttft,tpot,itl,e2el"
    )
    group.add_argument("--metric-percentiles", default="99", help="as 50,90,99")
    group.add_argument("--goodput", nargs="+", metavar="METRIC:MS", default=[])
    add_switch(group, "--save-result", "write the result as JSON")
    add_switch(group, "--save-detailed", "with a list entry for each request")
    add_switch(group, "--append-result", "append one line to the result file")
    group.add_argument("--result-dir", default=".", help="default: here")
    group.add_argument("--result-filename", help="default: made of label, rate, model and date")
    group.add_argument("--metadata", nargs="+", metavar="NAME=VALUE", default=[])
    group.add_argument("--label", help="beginning of the file's name; default: the backend")
    add_switch(group, "--disable-tqdm", "no progress bar")
    add_switch(
        group, "--profile", "trace the load test at the server, as its --profiler-config says"
    )


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError("must be a JSON object")
    return value


def pairs(flag: str, texts: Sequence[str], mark: str) -> dict[str, str]:
    """The names and values of a flag's words. Raises SettingsError for one without the mark."""
    found = {}
    for text in texts:
        name, sign, value = text.partition(mark)
        if not sign or not name:
            raise SettingsError(f"{flag} {text!r} is not of the form NAME{mark}VALUE")
        found[name] = value
    return found


def ranks(text: str) -> list[float]:
    """The percentiles of --metric-percentiles. Raises SettingsError."""
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = [-1.0]
    if not all(0.0 <= rank <= 100.0 for rank in found):
        raise SettingsError(
            f"--metric-percentiles is {text!r}; write numbers from 0 to 100, as 50,99"
        )
    return found


def metric_names(text: str) -> list[str]:
    """The metrics of --percentile-metrics. Raises SettingsError."""
    names = [part.strip() for part in text.split(",") if part.strip()]
    for name in names:
        if name not in METRICS:
            raise SettingsError(
                f"--percentile-metrics names {name!r}; it may name {', '.join(METRICS)}"
            )
    return names


def goals(texts: Sequence[str]) -> dict[str, float]:
    """Metric -> most milliseconds, of --goodput. Raises SettingsError."""
    found = {}
    for name, value in pairs("--goodput", texts, ":").items():
        try:
            goal_ms = float(value)
        except ValueError:
            goal_ms = -1.0
        if name not in ("ttft", "tpot", "e2el") or not goal_ms >= 0.0:
            raise SettingsError(
                f"--goodput {name}:{value} must be ttft, tpot or e2el and a number of milliseconds"
            )
        found[name] = goal_ms
    return found


def sampling_fields(flags: argparse.Namespace, is_chat: bool) -> dict[str, Any]:
    """What the flags add to a request's body; a field that was not asked for is left out."""
    names = (
        "temperature",
        "top_p",
        "min_p",
        "top_k",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
    )
    body: dict[str, Any] = {
        name: value for name in names if (value := getattr(flags, name)) is not None
    }
    if flags.ignore_eos:
        body["ignore_eos"] = True
    if flags.logprobs is not None:
        body |= (
            {"logprobs": True, "top_logprobs": flags.logprobs}
            if is_chat
            else {"logprobs": flags.logprobs}
        )
    if flags.chat_template_kwargs:
        if not is_chat:
            raise SettingsError("--chat-template-kwargs needs --backend openai-chat")
        body["chat_template_kwargs"] = flags.chat_template_kwargs
    extra: dict[str, Any] = flags.extra_body
    return body | extra
