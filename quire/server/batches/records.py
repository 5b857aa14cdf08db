"""What is kept of files and batches, and how the wire shows it.

Keeping them is `server.batches.store`; the forms are those of OpenAI's Files and Batch API.
"""

from __future__ import annotations

import os
from typing import Any, Literal

import msgspec

BatchStatus = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
"""Statuses of batches on which work is left."""

PURPOSES = ("batch", "assistants", "fine-tune", "vision", "user_data", "evals")
"""What a client may say that its file is for; only batch files are read here."""


def random_id(prefix: str) -> str:
    """An id that nobody can guess: the prefix and 32 random hex digits."""
    return prefix + os.urandom(16).hex()


class FileRecord(msgspec.Struct, kw_only=True):
    """One stored file; times in Unix seconds. Its bytes lie in the store's folder under its id."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None

    def wire(self) -> dict[str, Any]:
        """The file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.bytes,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "filename": self.filename,
            "purpose": self.purpose,
            "status": "processed",
            "status_details": None,
        }


class LineFault(msgspec.Struct, kw_only=True):
    """Why a line of an input file cannot be run; lines count from 1."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class BatchRecord(msgspec.Struct, kw_only=True):
    """One batch; times in Unix seconds.

    served    the first name of the model it was made for: a server of another model leaves it alone.
    expires_after_s  of its output files; None keeps them.
    """

    id: str
    endpoint: str
    input_file_id: str
    completion_window: str
    served: str
    created_at: int
    expires_at: int
    status: BatchStatus = "validating"
    metadata: dict[str, str] | None = None
    expires_after_s: int | None = None
    faults: list[LineFault] = []
    total: int = 0
    completed: int = 0
    failed: int = 0
    output_file_id: str | None = None
    error_file_id: str | None = None
    in_progress_at: int | None = None
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None

    def wire(self) -> dict[str, Any]:
        """The batch object."""
        errors = [msgspec.to_builtins(fault) for fault in self.faults]
        return {
            "id": self.id,
            "object": "batch",
            "endpoint": self.endpoint,
            "model": self.served,
            "errors": {"object": "list", "data": errors} if errors else None,
            "input_file_id": self.input_file_id,
            "completion_window": self.completion_window,
            "status": self.status,
            "output_file_id": self.output_file_id,
            "error_file_id": self.error_file_id,
            "created_at": self.created_at,
            "in_progress_at": self.in_progress_at,
            "expires_at": self.expires_at,
            "finalizing_at": self.finalizing_at,
            "completed_at": self.completed_at,
            "failed_at": self.failed_at,
            "expired_at": self.expired_at,
            "cancelling_at": self.cancelling_at,
            "cancelled_at": self.cancelled_at,
            "request_counts": {
                "total": self.total,
                "completed": self.completed,
                "failed": self.failed,
            },
            "metadata": self.metadata,
        }
