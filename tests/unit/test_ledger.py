"""The memory ledger: its lines by hand, what fits under a limit, and what is said where nothing does."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.memory import SMALL, TINY, shape, write_model
from quire.config.schema import CacheConfig, LoadConfig, ModelConfig, SchedulerConfig, Settings
from quire.engine.ledger import NotEnoughMemoryError
from quire.engine.resolve import ResolvedSettings, describe_model, resolve
from quire.hardware.cpu import Machine, read_machine
from quire.models import footprint
from quire.models.footprint import StepSizes

MIB, GIB = 1 << 20, 1 << 30

MACHINE = Machine(
    isa="x86_64",
    cpu_name="Test CPU",
    logical_cores=2,
    physical_cores=2,
    total_bytes=64 * GIB,
    available_bytes=64 * GIB,
)


def with_free(num_bytes: int) -> Machine:
    return replace(MACHINE, available_bytes=num_bytes)


def wanted(folder: Path, **flat: Any) -> Settings:
    """Settings of a random model; each leaf takes the names it has."""
    leaves = {"model": ModelConfig, "cache": CacheConfig, "scheduler": SchedulerConfig}
    made: dict[str, Any] = {}
    flat = {"model": str(folder), **flat}
    for name, leaf in leaves.items():
        known = [key for key in flat if key in leaf.__dataclass_fields__]
        made[name] = leaf(**{key: flat.pop(key) for key in known})
    assert not flat
    return Settings(load=LoadConfig(load_format="dummy"), **made)


def resolved(settings: Settings, machine: Machine = MACHINE) -> ResolvedSettings:
    return resolve(settings, describe_model(settings), machine, with_front=True)


def lines(found: ResolvedSettings) -> dict[str, int]:
    return {line.name: line.num_bytes for line in found.ledger.lines}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of 0.1B parameters, up to 4,096 tokens."""
    return write_model(tmp_path_factory.mktemp("small"), shape("llama", *SMALL))


def test_weights_by_hand(small: Path) -> None:
    found = lines(resolved(wanted(small, dtype="bfloat16")))
    vocab, width, wide = 32_000, 768, 2048
    assert found["weights: embedding"] == found["weights: head"] == 2 * vocab * width
    assert found["weights: attention"] == 2 * 12 * (768 + 256 + 256 + 768) * width
    assert found["weights: feed forward"] == 2 * 12 * 3 * wide * width
    assert found["weights: norm"] == 4 * (2 * 12 + 1) * width  # float32 whatever the dtype
    assert found["position tables"] == 4096 * 64 * 4


def test_a_tied_head_counts_once(tmp_path: Path) -> None:
    found = lines(resolved(wanted(write_model(tmp_path, shape("qwen3", *TINY)), dtype="float32")))
    assert found["weights: embedding"] == 4 * 512 * 128
    assert "weights: head" not in found


def test_the_default_cache_is_what_all_sequences_can_use(small: Path) -> None:
    found = resolved(wanted(small, dtype="bfloat16", max_num_seqs=4, max_model_len=1024))
    per_token = 12 * 2 * 4 * 64 * 2
    assert lines(found)["KV cache"] == 4 * 1024 * per_token
    assert found.ledger.total_bytes == sum(lines(found).values())


@pytest.mark.parametrize("free_mib", [900, 1200, 2000, 5000])
@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2"])
def test_the_default_cache_never_takes_more_than_is_free(
    tmp_path: Path, kind: str, free_mib: int
) -> None:
    settings = wanted(write_model(tmp_path, shape(kind, *SMALL)), dtype="bfloat16")
    found = resolved(settings, with_free(free_mib * MIB))
    assert found.ledger.total_bytes <= free_mib * MIB
    assert found.layout.num_slabs * found.layout.slab_bytes == lines(found)["KV cache"]


def test_a_memory_limit_of_a_cgroup_is_respected(small: Path, tmp_path: Path) -> None:
    for name, text in {
        "proc/meminfo": "MemTotal: 67108864 kB\nMemAvailable: 60000000 kB\n",
        "proc/self/cgroup": "0::/job\n",
        "sys/fs/cgroup/job/memory.max": str(1200 * MIB),
        "sys/fs/cgroup/job/memory.current": str(200 * MIB),
        "sys/fs/cgroup/job/memory.stat": f"inactive_file {50 * MIB}\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = resolved(wanted(small, dtype="bfloat16"), read_machine(tmp_path))
    assert found.available_bytes == 1050 * MIB
    assert 900 * MIB < found.ledger.total_bytes <= 1050 * MIB


@pytest.mark.parametrize(
    ("flat", "free_mib"),
    [
        ({"dtype": "float32"}, 950),
        ({"dtype": "float32"}, 650),
        ({"dtype": "bfloat16", "max_num_seqs": 256}, 600),
        ({"dtype": "bfloat16", "kv_cache_memory_bytes": 4 * GIB}, 1500),
        ({"dtype": "bfloat16", "max_num_batched_tokens": 65_536}, 2000),
    ],
)
def test_the_command_that_is_named_fits(small: Path, flat: dict[str, Any], free_mib: int) -> None:
    machine = with_free(free_mib * MIB)
    with pytest.raises(NotEnoughMemoryError, match="are needed") as caught:
        resolved(wanted(small, **flat), machine)
    words = shlex.split(str(caught.value).partition("this fits: ")[2])
    assert words[:3] == ["quire", "serve", str(small)]
    given = {
        name[2:].replace("-", "_"): value if name == "--dtype" else int(value)
        for name, value in zip(words[3::2], words[4::2], strict=True)
    }
    assert given != flat
    found = resolved(wanted(small, **given), machine)
    assert found.ledger.total_bytes <= free_mib * MIB


def test_where_nothing_fits_that_is_said(small: Path) -> None:
    with pytest.raises(NotEnoughMemoryError, match="no setting makes it fit"):
        resolved(wanted(small), with_free(300 * MIB))


def test_a_model_that_cannot_fit_is_refused_before_torch_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path, shape("llama", 131_072, 512, 1024, 512, 128, 1000))
    code = (
        "import sys\n"
        "from quire.config.schema import LoadConfig, ModelConfig, Settings\n"
        "from quire.engine.client import make_client\n"
        "from quire.protocol.errors import SettingsError\n"
        "settings = Settings(model=ModelConfig(model=sys.argv[1]), load=LoadConfig(load_format='dummy'))\n"
        "for own_process in (True, False):\n"
        "    try:\n"
        "        make_client(settings, own_process=own_process)\n"
        "    except SettingsError as error:\n"
        "        print(error)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("of memory are needed") == 2


def test_larger_steps_never_take_less(small: Path) -> None:
    spec = describe_model(wanted(small)).spec
    sizes = StepSizes(num_tokens=512, num_rows=16, max_model_len=4096, dtype_bytes=2)
    for grown in (
        replace(sizes, num_tokens=1024),
        replace(sizes, num_rows=64),
        replace(sizes, max_model_len=8192),
    ):
        assert footprint.scratch_bytes(spec, grown) >= footprint.scratch_bytes(spec, sizes)
        assert footprint.arena_bytes(spec, grown) >= footprint.arena_bytes(spec, sizes)
