"""Fixtures that every folder of tests may use; leaves building checkpoints to `tests/checkpoints.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quire.hardware.threads import bound_waiting
from tests.checkpoints import make

bound_waiting()  # before any test loads torch: test runs share their cores


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`checkpoint(family, **kw)` gives the folder of a tiny checkpoint, built once per session. Do not write there."""
    root = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def get(family: str, **kw: Any) -> Path:
        key = json.dumps([family, kw], sort_keys=True, default=str)
        if key not in made:
            made[key] = make(family, root / f"{family}-{len(made)}", **kw)
        return made[key]

    return get


@pytest.fixture(autouse=True, scope="session")
def _offline() -> Iterator[None]:
    """No test may reach for a hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TOKENIZERS_PARALLELISM", "false")
        yield
