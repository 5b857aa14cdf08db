"""A real server process over the scripted engine: `python -m tests.server.scripted_server FOLDER PACE_S FLAGS…`.

Words of FLAGS are those of `quire serve`. The engine takes PACE_S seconds a step; the prompt [99] kills it,
and it loads for as long as the folder has a file `hold`.
"""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from quire.async_llm import AsyncLLM
from quire.config.cli import read_serve
from quire.config.schema import Settings
from quire.protocol.errors import SettingsError
from quire.protocol.outputs import EngineInfo, EngineOutputs
from quire.server.launch import serve
from tests.server.scripted import ScriptedClient


class Paced(ScriptedClient):
    """One step every `pace_s` seconds."""

    def __init__(self, settings: Settings, folder: str, pace_s: float) -> None:
        super().__init__(settings, folder)
        self.folder = Path(folder)
        self.pace_s = pace_s

    def wait_ready(self, timeout_s: float | None = None) -> EngineInfo:
        while (self.folder / "hold").exists():
            self.phase = ("loading weights", 50)
            time.sleep(0.01)
        return super().wait_ready()

    def step(self) -> EngineOutputs | None:
        if any(request.prompt_token_ids == [99] for request in self.live.values()):
            self.die("the engine process ended with code -9")
            time.sleep(60)
        time.sleep(self.pace_s if self.live else 0.0)
        return super().step()


def main() -> int:
    folder, pace_s, *flags = sys.argv[1:]
    logging.basicConfig(level="INFO", stream=sys.stderr)
    options = read_serve([folder, *flags])
    try:
        return serve(
            options.settings,
            options.server,
            lambda settings: AsyncLLM(Paced(settings, folder, float(pace_s))),
        )
    except SettingsError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
