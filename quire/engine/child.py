"""The process that an engine runs in: how it is started, and by which names it is reached.

Talking to it is `engine.link`; what it does is `engine.process`. Importing this file takes little time, so that
a program can start the process first and import what it needs itself while that imports torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from types import TracebackType

import msgspec

from quire.config.schema import Settings
from quire.engine.record import new_memory
from quire.hardware.threads import bound_waiting


class Child:
    """A started process. Who takes it over closes `descriptor`, of the memory that they share.

    folder  takes the sockets; `number` tells them from those of others.
    """

    def __init__(self, folder: str, number: int, settings: Settings) -> None:
        self.addresses = [f"ipc://{folder}/{name}-{number}" for name in ("in", "out")]
        self.descriptor = new_memory()
        # The settings travel as an argument, not pickled: the child imports no code of the caller's.
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "quire.engine.process",
                *self.addresses,
                str(self.descriptor),
                str(os.getpid()),
                msgspec.json.encode(settings).decode(),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(self.descriptor,),
        )


class EarlyChild:
    """A process that is started before there is a client for it; ended with the block if none takes it."""

    def __init__(self, settings: Settings) -> None:
        bound_waiting()
        self._settings = settings
        self._folder: tempfile.TemporaryDirectory[str] | None = new_folder()
        self._child = Child(self._folder.name, 0, settings)

    def take(self, settings: Settings) -> tuple[tempfile.TemporaryDirectory[str], Child] | None:
        """Its folder and process, once; None, and its end, if it was started with other settings."""
        folder, self._folder = self._folder, None
        if folder is not None and settings == self._settings:
            return folder, self._child
        self._folder = folder
        self.end()
        return None

    def end(self) -> None:
        """Ends the process, unless somebody has taken it."""
        folder, self._folder = self._folder, None
        if folder is not None:
            self._child.process.kill()
            self._child.process.wait()
            os.close(self._child.descriptor)
            folder.cleanup()

    def __enter__(self) -> EarlyChild:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


def new_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder for sockets."""
    return tempfile.TemporaryDirectory(prefix="quire-")
