"""After an engine's death: who is charged with it, who runs again and when, and when it is enough.

Starting engines and sending requests is `engine.client`; what is kept of a request is `engine.replay`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from quire.engine.record import name_of
from quire.engine.replay import Live, Roster
from quire.protocol.errors import RequestFailedError

WINDOW_S = 600.0
"""How long a death counts, and how long a request that killed is refused."""
_SUSPECT_AT = 2  # deaths with a request in common
_LONG_TRIAL_AT = 3
_TRIAL_TOKENS = 8
"""Tokens past those received that a suspect makes alone. The engine may have been a few ahead of what
arrived, and what kills depends on the position, so that the next try comes to it at once."""


@dataclass(frozen=True)
class Death:
    """How an engine ended.

    kind      settings, load or internal, as `protocol.wire.Died` has it.
    in_step   names of the requests in its last step, see `engine.record`; empty between two steps.
    is_theirs  whether the requests may have done it; not if somebody stopped or killed the process.
    """

    text: str
    kind: str
    in_step: frozenset[int] = frozenset()
    is_theirs: bool = True


class Restarts:
    """How often an engine may be started again."""

    def __init__(self, limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._times: deque[float] = deque()

    def take(self) -> bool:
        """Whether one more start is allowed now; it counts."""
        now_s = self._clock()
        while self._times and self._times[0] <= now_s - WINDOW_S:
            self._times.popleft()
        self._times.append(now_s)
        return len(self._times) <= self._limit


class Court:
    """Charges deaths to requests, and tries suspects one at a time.

    A request that took part in two deaths is suspect. The first trial is short and alone: a few tokens
    past where it stood, then all go on together, so that nobody waits long for the innocent. Where that
    found nobody and the engine dies again, the suspects run one at a time to their ends, beside
    everybody else. Who is on trial when the engine dies is guilty: it ends with an error, its like is
    refused for ten minutes, and the others are acquitted. Use it under the roster's lock.
    """

    def __init__(self, roster: Roster, clock: Callable[[], float] = time.monotonic) -> None:
        self._roster = roster
        self._clock = clock
        self._refused: dict[bytes, float] = {}
        self._waiting: list[Live] = []
        self._on_trial: Live | None = None
        self._is_long = False
        self._goal = 0

    def check(self, live: Live) -> None:
        """Raises RequestFailedError for the like of a request that killed an engine."""
        if not self._refused:
            return
        now_s = self._clock()
        self._refused = {one: end for one, end in self._refused.items() if end > now_s}
        left_s = self._refused.get(live.digest(), now_s) - now_s
        if left_s > 0:
            raise RequestFailedError(
                f"a request like this one ended the engine; it is refused for {left_s:.0f} s more"
            )

    @property
    def is_sitting(self) -> bool:
        """Whether a suspect is on trial or waits for it."""
        return self._on_trial is not None or bool(self._waiting)

    def charge(self, death: Death) -> Live | None:
        """The engine died: takes back what it had. Returns the guilty request, if one is found."""
        on_trial, is_long = self._on_trial, self._is_long
        had = {live: name_of(live.sent_as or "") for live in self._roster.sent}
        self._roster.recall_all()
        self._on_trial, self._waiting = None, []
        if not death.is_theirs:
            return None
        if on_trial in had and (not is_long or had[on_trial] in death.in_step):
            self._refused[on_trial.digest()] = self._clock() + WINDOW_S
            for live in self._roster.live.values():
                live.num_deaths = 0
            return on_trial
        for live, name in had.items():
            if not death.in_step or name in death.in_step:
                live.num_deaths += 1
        return None

    def open(self) -> None:
        """A new engine can serve, and has nothing yet; `turn` says what it gets first."""
        live = self._roster.live.values()
        self._waiting = [one for one in live if one.num_deaths >= _SUSPECT_AT]
        self._is_long = any(one.num_deaths >= _LONG_TRIAL_AT for one in self._waiting)

    def turn(self) -> tuple[list[Live], list[Live]]:
        """Which requests the engine must give up for now, and which it gets; to be called after every
        change while the court is sitting."""
        recalled: list[Live] = []
        current = self._on_trial
        if current is not None and not (
            current.open and (self._is_long or current.num_received < self._goal)
        ):
            self._on_trial = None
            if current.open and self._waiting:
                recalled.append(current)
        while self._on_trial is None and self._waiting:
            suspect = self._waiting.pop(0)
            if suspect.open:
                self._on_trial = suspect
                self._goal = suspect.num_received + _TRIAL_TOKENS * len(suspect.open)
        if self._on_trial is not None and not self._is_long:
            found = [self._on_trial] if self._on_trial.sent_as is None else []
            return recalled, found
        kept_back = set(self._waiting)
        return recalled, [
            live
            for live in self._roster.live.values()
            if live.sent_as is None and live not in kept_back
        ]
