"""Files and batches on disk: one SQLite database, and one file of bytes for each stored file.

Every method may block; call them in a thread. Running batches is `server.batches.jobs`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from quire.server.batches.records import OPEN, BatchRecord, FileRecord, random_id

_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, purpose TEXT NOT NULL,
    bytes INTEGER NOT NULL, expires_at INTEGER, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS batches (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT UNIQUE NOT NULL, status TEXT NOT NULL,
    served TEXT NOT NULL, input_file_id TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    batch_id TEXT NOT NULL, line INTEGER NOT NULL, is_fault INTEGER NOT NULL, record BLOB NOT NULL,
    PRIMARY KEY (batch_id, line)) WITHOUT ROWID;
"""


class StoreBusyError(Exception):
    """Another process has the folder open."""


class Store:
    """The folder of one server. Safe in several threads.

    A result is kept as soon as its line has run, so that a batch goes on where it stood, even after
    the process was killed.
    """

    def __init__(self, folder: Path) -> None:
        """Opens or makes the folder. Raises StoreBusyError, OSError or sqlite3.Error."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._files = folder / "files"
        self._files.mkdir(exist_ok=True, mode=0o700)
        self._lock_file = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock_file)
            raise StoreBusyError(str(folder)) from None
        self._mutex = threading.Lock()
        self._db = sqlite3.connect(
            folder / "batches.sqlite", check_same_thread=False, isolation_level=None
        )
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        os.chmod(folder / "batches.sqlite", 0o600)
        self._drop_orphans()

    def close(self) -> None:
        """Lets another process have the folder."""
        with self._mutex:
            self._db.close()
            os.close(self._lock_file)

    def _drop_orphans(self) -> None:
        """Bytes that no record names are left from uploads or outputs that were cut off."""
        known = {name for (name,) in self._db.execute("SELECT id FROM files")}
        for path in self._files.iterdir():
            if path.name not in known:
                path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    # Files.

    def path_of(self, file_id: str) -> Path:
        """Where the bytes of a file lie; `file_id` must be one that `random_id` made."""
        return self._files / file_id

    def add_file(self, record: FileRecord) -> None:
        """Records a file whose bytes lie at `path_of(record.id)`."""
        with self._transaction() as db:
            _insert_file(db, record)

    def file(self, file_id: str) -> FileRecord | None:
        """The record of a file; None if there is none, or its time is over."""
        with self._mutex:
            row = self._db.execute("SELECT body FROM files WHERE id = ?", (file_id,)).fetchone()
        record = msgspec.json.decode(row[0], type=FileRecord) if row else None
        if record is not None and record.expires_at is not None:
            return record if record.expires_at > time.time() else None
        return record

    def list_files(
        self, *, limit: int, after: str | None, purpose: str | None, newest_first: bool
    ) -> tuple[list[FileRecord], bool]:
        """A page of files behind the file `after`, and whether there are more. KeyError: no such file."""
        with self._mutex:
            rows = self._page("files", limit, after, newest_first, purpose)
        found = [msgspec.json.decode(body, type=FileRecord) for (body,) in rows]
        return found[:limit], len(found) > limit

    def _page(
        self, table: str, limit: int, after: str | None, newest_first: bool, purpose: str | None
    ) -> list[tuple[bytes]]:
        words, values = ["1"], list[object]()
        if after is not None:
            row = self._db.execute(f"SELECT number FROM {table} WHERE id = ?", (after,)).fetchone()
            if row is None:
                raise KeyError(after)
            words.append("number < ?" if newest_first else "number > ?")
            values.append(row[0])
        if purpose is not None:
            words.append("purpose = ?")
            values.append(purpose)
        order = "DESC" if newest_first else "ASC"
        where = " AND ".join(words)
        text = f"SELECT body FROM {table} WHERE {where} ORDER BY number {order} LIMIT ?"
        return list(self._db.execute(text, (*values, limit + 1)))

    def delete_file(self, file_id: str) -> bool:
        """Forgets a file; False, and nothing done, while a batch still reads it."""
        with self._transaction() as db:
            open_states = ",".join("?" * len(OPEN))
            used = db.execute(
                f"SELECT 1 FROM batches WHERE input_file_id = ? AND status IN ({open_states})",
                (file_id, *OPEN),
            ).fetchone()
            if used:
                return False
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))
        self.path_of(file_id).unlink(missing_ok=True)
        return True

    def stored_bytes(self) -> int:
        """Bytes of all files together."""
        with self._mutex:
            row = self._db.execute("SELECT COALESCE(SUM(bytes), 0) FROM files").fetchone()
        return int(row[0])

    def sweep(self, now: float) -> None:
        """Forgets files whose time is over."""
        with self._mutex:
            rows = self._db.execute(
                "SELECT id FROM files WHERE expires_at IS NOT NULL AND expires_at <= ?", (now,)
            ).fetchall()
        for (file_id,) in rows:
            self.delete_file(file_id)

    # Batches.

    def add_batch(self, record: BatchRecord) -> None:
        """Records a new batch."""
        with self._transaction() as db:
            db.execute(
                "INSERT INTO batches (id, status, served, input_file_id, body) VALUES (?,?,?,?,?)",
                (
                    record.id,
                    record.status,
                    record.served,
                    record.input_file_id,
                    msgspec.json.encode(record),
                ),
            )

    def batch(self, batch_id: str) -> BatchRecord | None:
        """The record of a batch as last saved."""
        with self._mutex:
            row = self._db.execute("SELECT body FROM batches WHERE id = ?", (batch_id,)).fetchone()
        return msgspec.json.decode(row[0], type=BatchRecord) if row else None

    def list_batches(self, *, limit: int, after: str | None) -> tuple[list[BatchRecord], bool]:
        """A page of batches, newest first. KeyError: there is no batch `after`."""
        with self._mutex:
            rows = self._page("batches", limit, after, True, None)
        found = [msgspec.json.decode(body, type=BatchRecord) for (body,) in rows]
        return found[:limit], len(found) > limit

    def next_open(self, served: list[str]) -> BatchRecord | None:
        """The oldest batch of these models on which work is left."""
        states, names = ",".join("?" * len(OPEN)), ",".join("?" * len(served))
        with self._mutex:
            row = self._db.execute(
                f"SELECT body FROM batches WHERE status IN ({states}) AND served IN ({names}) "
                "ORDER BY number LIMIT 1",
                (*OPEN, *served),
            ).fetchone()
        return msgspec.json.decode(row[0], type=BatchRecord) if row else None

    def save_batch(self, record: BatchRecord, outputs: list[FileRecord] | None = None) -> None:
        """Writes a batch's record, and those of its output files, which take the place of its results."""
        with self._transaction() as db:
            for one in outputs or ():
                _insert_file(db, one)
            if outputs is not None:
                db.execute("DELETE FROM results WHERE batch_id = ?", (record.id,))
            db.execute(
                "UPDATE batches SET status = ?, body = ? WHERE id = ?",
                (record.status, msgspec.json.encode(record), record.id),
            )

    # Results of lines.

    def add_result(self, batch_id: str, line: int, record: bytes, *, is_fault: bool) -> None:
        """Keeps what came of a line: one JSON object, without a line feed."""
        with self._transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)",
                (batch_id, line, is_fault, record),
            )

    def done_lines(self, batch_id: str) -> dict[int, bool]:
        """Lines that have run -> whether with a fault."""
        with self._mutex:
            rows = self._db.execute(
                "SELECT line, is_fault FROM results WHERE batch_id = ?", (batch_id,)
            ).fetchall()
        return {line: bool(is_fault) for line, is_fault in rows}

    def write_results(self, batch_id: str, *, is_fault: bool) -> tuple[str, int] | None:
        """A new file with the results in the order of their lines: its id and size; None without any."""
        file_id, size, last = random_id("file-"), 0, -1
        with open(self.path_of(file_id), "wb", opener=_private) as out:
            while True:
                with self._mutex:
                    rows = self._db.execute(
                        "SELECT line, record FROM results WHERE batch_id = ? AND is_fault = ? "
                        "AND line > ? ORDER BY line LIMIT 256",
                        (batch_id, is_fault, last),
                    ).fetchall()
                for last, record in rows:  # noqa: B007
                    size += out.write(record + b"\n")
                if not rows:
                    break
        if not size:
            self.path_of(file_id).unlink()
            return None
        return file_id, size


def _insert_file(db: sqlite3.Connection, record: FileRecord) -> None:
    db.execute(
        "INSERT INTO files (id, purpose, bytes, expires_at, body) VALUES (?, ?, ?, ?, ?)",
        (record.id, record.purpose, record.bytes, record.expires_at, msgspec.json.encode(record)),
    )


def _private(path: str, flags: int) -> int:
    """Opens for the owner only."""
    return os.open(path, flags, 0o600)
