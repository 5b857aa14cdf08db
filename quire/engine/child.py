"""The process that an engine runs in: how it is started, and by which names it is reached.

Talking to it is `engine.link`; what it does is `engine.process`. Importing this file takes little time, so that
a program can start the process first and import what it needs itself while that loads its libraries.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from quire.engine.record import new_memory
from quire.hardware.threads import bound_waiting

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

    from quire.config.schema import Settings


class Child:
    """A process that loads its libraries until `begin`. Who takes it over closes `descriptor`, of the memory that they
    share."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.descriptor = new_memory()
        words = (str(self.descriptor), str(os.getpid()))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "quire.engine.process", *words],
            stdin=subprocess.PIPE,
            pass_fds=(self.descriptor,),
        )

    def begin(self, folder: str, number: int, settings: Settings) -> None:
        """Tells it what to do; once. `folder` takes the sockets, `number` tells them from those of others."""
        import msgspec  # by now others have imported it

        self.addresses = [f"ipc://{folder}/{name}-{number}" for name in ("in", "out")]
        # The settings are not pickled: the child imports no code of the caller's.
        words = msgspec.json.encode((*self.addresses, settings))
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which `engine.link` notices
            self.process.stdin.write(words)
        self.close_pipe()

    def close_pipe(self) -> None:
        """Without `begin` it ends then."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


def started(folder: str, number: int, settings: Settings) -> Child:
    """A process that has been told at once."""
    child = Child()
    child.begin(folder, number, settings)
    return child


class EarlyChild:
    """A process that is started before there is a client for it, even before its settings are known; ended with the
    block if none takes it."""

    def __init__(self) -> None:
        bound_waiting()
        self._settings: Settings | None = None
        self._folder: TemporaryDirectory[str] | None = None
        self._child: Child | None = Child()

    def begin(self, settings: Settings) -> None:
        """Lets it begin with these settings."""
        assert self._child is not None
        self._settings, self._folder = settings, new_folder()
        self._child.begin(self._folder.name, 0, settings)

    def take(self, settings: Settings) -> tuple[TemporaryDirectory[str], Child] | None:
        """Its folder and process, once; None, and its end, if it began with other settings."""
        if self._child is not None and self._settings is None:
            self.begin(settings)
        child, folder = self._child, self._folder
        if child is None or folder is None or settings != self._settings:
            self.end()
            return None
        self._child = self._folder = None
        return folder, child

    def end(self) -> None:
        """Ends the process, unless somebody has taken it."""
        child, folder = self._child, self._folder
        self._child = self._folder = None
        if child is not None:
            child.process.kill()
            child.process.wait()
            child.close_pipe()
            os.close(child.descriptor)
        if folder is not None:
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


def new_folder() -> TemporaryDirectory[str]:
    """A folder for sockets."""
    from tempfile import TemporaryDirectory  # 5 ms, by which the process starts earlier

    return TemporaryDirectory(prefix="quire-")
