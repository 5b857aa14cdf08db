"""Responses that are kept: in a SQLite file, or in memory, within bounds of number, bytes and time.

Those that still run are `server.responses.live`.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from quire.protocol.errors import SettingsError

logger = logging.getLogger(__name__)

_TABLE = """
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, used_s REAL NOT NULL, owner INTEGER NOT NULL, size INTEGER NOT NULL,
    previous TEXT, response BLOB NOT NULL, items BLOB NOT NULL, events BLOB)
"""
_INDEX = "CREATE INDEX IF NOT EXISTS by_use ON responses (used_s, size)"
_LONGEST_CHAIN = 4096
"""Responses that one conversation may have."""
_BUSY_S = 5.0


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """One response with what led to it.

    response  the object as clients get it.
    items     its input items, without those of earlier responses.
    events    the stream, one entry an event as sent; None where none was kept.
    owner     the process that ran it.
    """

    response: dict[str, Any]
    items: list[dict[str, Any]]
    previous: str | None = None
    events: list[bytes] | None = None
    owner: int = msgspec.field(default_factory=os.getpid)

    @property
    def id(self) -> str:
        """The name it is retrieved by."""
        return str(self.response["id"])


class ResponseStore:
    """The table of responses; may be used from several threads, and a file by several servers.

    path       a file, which is made where it is missing, for its owner only; None for memory.
    max_count  most responses; those not used for longest go first, so do they for `max_bytes`.
    ttl_s      seconds after its last use for which a response is kept.
    clock      Unix seconds.
    Raises SettingsError for a file that cannot be used.
    """

    def __init__(
        self,
        path: Path | None,
        *,
        max_count: int,
        max_bytes: int,
        ttl_s: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._max_count, self._max_bytes, self._ttl_s = max_count, max_bytes, ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        try:
            self._database = _opened(path)
        except (OSError, sqlite3.Error) as error:
            raise SettingsError(
                f"--responses-store {path} cannot be used: {error}; give a path that can be written, "
                "memory or none"
            ) from error

    def close(self) -> None:
        """Ends the use of the file."""
        with self._lock:
            self._database.close()

    def put(self, stored: Stored) -> bool:
        """Keeps a response, in place of one of the same id; False if it alone is over the bounds."""
        response, items = msgspec.json.encode(stored.response), msgspec.json.encode(stored.items)
        events = None if stored.events is None else msgspec.msgpack.encode(stored.events)
        size = len(response) + len(items) + len(events or b"")
        if size > self._max_bytes:
            logger.warning("response %s has %d bytes and is not kept", stored.id, size)
            return False
        row = (stored.id, self._clock(), stored.owner, size, stored.previous)
        with self._lock, self._database as database:
            database.execute(
                "INSERT OR REPLACE INTO responses VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, response, items, events),
            )
            self._evict(database)
        return True

    def get(self, response_id: str) -> Stored | None:
        """A response; None if it was never kept, deleted or evicted."""
        with self._lock, self._database as database:
            return self._get(database, response_id)

    def _get(self, database: sqlite3.Connection, response_id: str) -> Stored | None:
        row = database.execute(
            "SELECT used_s, owner, previous, response, items, events FROM responses WHERE id = ?",
            (response_id,),
        ).fetchone()
        if row is None or row[0] < self._clock() - self._ttl_s:
            return None
        return Stored(
            owner=row[1],
            previous=row[2],
            response=msgspec.json.decode(row[3]),
            items=msgspec.json.decode(row[4]),
            events=None if row[5] is None else msgspec.msgpack.decode(row[5], type=list[bytes]),
        )

    def chain(self, response_id: str) -> list[Stored]:
        """A response and all before it, first one first; all count as used now.

        Raises KeyError with the id that is not kept.
        """
        found: list[Stored] = []
        wanted: str | None = response_id
        with self._lock, self._database as database:
            while wanted is not None:
                stored = self._get(database, wanted)
                if stored is None or len(found) == _LONGEST_CHAIN:
                    raise KeyError(wanted)
                found.append(stored)
                wanted = stored.previous
            used = [(self._clock(), one.id) for one in found]
            database.executemany("UPDATE responses SET used_s = ? WHERE id = ?", used)
        return found[::-1]

    def delete(self, response_id: str) -> bool:
        """Whether there was such a response; now there is none."""
        with self._lock, self._database as database:
            gone = database.execute("DELETE FROM responses WHERE id = ?", (response_id,))
            return gone.rowcount > 0

    def _evict(self, database: sqlite3.Connection) -> None:
        database.execute("DELETE FROM responses WHERE used_s < ?", (self._clock() - self._ttl_s,))
        while True:
            count, size = database.execute(
                "SELECT COUNT(*), COALESCE(SUM(size), 0) FROM responses"
            ).fetchone()
            if count <= self._max_count and size <= self._max_bytes:
                return
            too_many = max(1, count - self._max_count)
            database.execute(
                "DELETE FROM responses WHERE rowid IN "
                "(SELECT rowid FROM responses ORDER BY used_s, rowid LIMIT ?)",
                (too_many,),
            )


def _opened(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
    database = sqlite3.connect(
        ":memory:" if path is None else path, timeout=_BUSY_S, check_same_thread=False
    )
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    with database:
        database.execute(_TABLE)
        database.execute(_INDEX)
    return database
