"""Fixtures of the server's tests; the server itself is `scripted`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests import checkpoints
from tests.server.scripted import Scripted, scripted


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and nothing else."""
    root = tmp_path_factory.mktemp("tokenizer")
    checkpoints.write_tokenizer(root)
    return root


@pytest.fixture
def serve(folder: Path) -> Callable[..., Any]:
    """`serve(test, **settings)` runs an async test on a fresh scripted server, and checks that it is clean."""

    def run(test: Callable[[Scripted], Awaitable[Any]], **more: Any) -> Any:
        async def inside() -> Any:
            async with scripted(folder, **more) as server:
                result = await test(server)
                assert await server.is_clean(), "something is left of a request"
                return result

        return asyncio.run(inside())

    return run
