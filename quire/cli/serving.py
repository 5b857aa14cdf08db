"""`quire serve`: reads the flags, sets up the log, and runs the server.

The server itself is `quire.server.launch`; the engine's process is started by `quire.cli.serve` before.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import quire
from quire.config import env
from quire.config.cli import read_serve
from quire.config.schema import Settings
from quire.engine.child import EarlyChild
from quire.models.loading.hub import check_name, needs_hub, with_local_folders
from quire.protocol.errors import SettingsError
from quire.server.address import bind, check

logger = logging.getLogger("quire")

_SECRET = frozenset({"api_key", "hf_token"})
"""Settings that are not written to the log."""
_NAMES = frozenset(
    {
        "io_processor_plugin",
        "reasoning_parser",
        "reasoning_parser_plugin",
        "tool_call_parser",
        "tool_parser_plugin",
    }
)
"""Settings that name what may not be there, which is told before an engine begins to read weights."""


def run(argv: Sequence[str], child: EarlyChild | None) -> int:
    """Serves; returns the exit code. A wrong argument exits with 2. `child` begins as soon as it is clear with what."""
    options = read_serve(argv)
    try:
        set_up_log()
        check_model(options.settings)
        for note in notes(options.notes):
            logger.warning("%s", note)
        shown = {name: value for name, value in options.given.items() if name not in _SECRET}
        logger.info("Quire %s; given: %s", quire.__version__, shown)
        check(options.server)
        bound = bind(options.server)
        if _NAMES & options.given.keys():
            from quire.frontend.inputs import check_named  # takes 0.15 s

            check_named(options.settings)
        if child is not None and settings_are_known(options.settings):
            child.begin(with_local_folders(options.settings))
        from quire.server.launch import serve  # takes 0.4 s, while the child imports torch

        return serve(options.settings, options.server, _maker(child), bound=bound)
    except SettingsError as error:
        print(f"quire serve: error: {error}", file=sys.stderr)
        return 2


def settings_are_known(settings: Settings) -> bool:
    """Whether it is clear which settings the engine gets; a download may change them."""
    return not needs_hub(settings) and Path(settings.model.model).is_dir()


def _maker(child: EarlyChild | None) -> Callable[[Settings], Any] | None:
    """What makes the face of an engine in that process; None where there is no process yet."""
    if child is None:
        return None

    def make(settings: Settings) -> Any:
        from quire.async_llm import AsyncLLM

        return AsyncLLM.from_settings(settings, wait=False, early=child)

    return make


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
