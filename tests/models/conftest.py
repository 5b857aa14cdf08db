"""One checkpoint on disk and one run of Transformers for each case, kept for the session."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from quire.models.registry import ModelDescription, describe
from tests.models import harness
from tests.models.families import CASES, PROMPT_LEN, Case


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices of 64 columns gain nothing from more, and on a busy machine threads wait for others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass(frozen=True)
class Built:
    """A case on disk, described, and what Transformers makes of `ids`."""

    case: Case
    description: ModelDescription
    ids: list[int]
    theirs: torch.Tensor


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Built]:
    """`built(name)` for a name in CASES."""
    made: dict[str, Built] = {}

    def get(name: str) -> Built:
        if name not in made:
            case = CASES[name]
            folder: Path = harness.write_checkpoint(
                tmp_path_factory.mktemp(name), case.config, quiet=case.quiet
            )
            generator = torch.Generator().manual_seed(3)
            ids = torch.randint(
                0,
                case.config.get("text_config", case.config)["vocab_size"],
                (PROMPT_LEN,),
                generator=generator,
            )
            made[name] = Built(
                case,
                describe(str(folder)),
                ids.tolist(),
                harness.their_logits(folder, ids.tolist()),
            )
        return made[name]

    return get
