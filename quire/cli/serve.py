"""`quire serve`: reads the flags, sets up the log, and runs the server.

The server itself is `quire.server.launch`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import quire
from quire.config import env
from quire.config.cli import read_serve
from quire.config.schema import Settings
from quire.models.loading.hub import check_name
from quire.protocol.errors import SettingsError

logger = logging.getLogger("quire")

_SECRET = frozenset({"api_key", "hf_token"})
"""Settings that are not written to the log."""


def main(argv: Sequence[str]) -> int:
    """Serves; returns the exit code. A wrong argument exits with 2."""
    options = read_serve(argv)
    try:
        set_up_log()
        check_model(options.settings)
        for note in notes(options.notes):
            logger.warning("%s", note)
        shown = {name: value for name, value in options.given.items() if name not in _SECRET}
        logger.info("Quire %s; given: %s", quire.__version__, shown)
        from quire.server.launch import serve  # takes 0.3 s, which a wrong argument should not wait

        return serve(options.settings, options.server)
    except SettingsError as error:
        print(f"quire serve: error: {error}", file=sys.stderr)
        return 2


def set_up_log() -> None:
    """Lines to standard error at QUIRE_LOG_LEVEL."""
    logging.basicConfig(
        level=env.log_level().upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )


def check_model(settings: Settings) -> None:
    """Raises SettingsError, before anything is started, unless the model is a folder or a hub name."""
    check_name(settings.model)


def notes(flags: Sequence[str]) -> list[str]:
    """Lines about everything that was given and does nothing."""
    found = list(flags)
    found += [f"environment variable {name} has no effect" for name in env.without_effect()]
    found += [f"environment variable {name} is not known" for name in env.unknown()]
    return found
