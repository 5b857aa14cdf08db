"""The machine as it is read from files of /proc and /sys; leaves real GPUs to the tests marked gpu."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from quire.hardware import cpu
from quire.hardware.cpu import isa_of, read_machine
from quire.hardware.cuda import Gpu, read_gpus
from quire.hardware.threads import bound_waiting, set_threads

GIB = 1 << 30


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of four cores with two threads each and 16 GiB, 8 of them free; no cgroup limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setattr(cpu, "read_gpus", lambda: ())
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    put(
        tmp_path,
        "proc/cpuinfo",
        "processor\t: 0\nmodel name\t: Test CPU\nflags\t\t: sse avx2 avx512f\n",
    )
    put(tmp_path, "proc/meminfo", f"MemTotal: {16 << 20} kB\nMemAvailable: {8 << 20} kB\n")
    for number in range(8):
        core = number % 4
        path = f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list"
        put(tmp_path, path, f"{core},{core + 4}\n")
    return tmp_path


def put(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_reads_cores_memory_and_isa(root: Path) -> None:
    machine = read_machine(root)
    assert machine.isa == "x86_64 avx2 avx512"
    assert machine.cpu_name == "Test CPU"
    assert (machine.logical_cores, machine.physical_cores) == (8, 4)
    assert (machine.total_bytes, machine.available_bytes) == (16 * GIB, 8 * GIB)
    assert machine.num_gpus == 0


def test_affinity_limits_the_cores(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 4})
    machine = read_machine(root)
    assert (machine.logical_cores, machine.physical_cores) == (3, 2)


@pytest.mark.parametrize(
    ("quota", "cores"),
    [("250000 100000", 2), ("50000 100000", 1), ("max 100000", 4), ("900000 100000", 4)],
)
def test_quota_of_a_parent_group_limits_the_cores(root: Path, quota: str, cores: int) -> None:
    put(root, "proc/self/cgroup", "0::/outer/inner\n")
    put(root, "sys/fs/cgroup/outer/inner/cpu.max", "max 100000\n")
    put(root, "sys/fs/cgroup/outer/cpu.max", quota + "\n")
    assert read_machine(root).physical_cores == cores


def test_version_1_quota_at_the_mount_when_the_path_is_the_hosts(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:cpu,cpuacct:/docker/0123\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "300000\n")
    put(root, "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n")
    assert read_machine(root).physical_cores == 3


def test_version_2_memory_limit_counts_cache_as_free(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/job\n")
    put(root, "sys/fs/cgroup/job/memory.max", str(4 * GIB))
    put(root, "sys/fs/cgroup/job/memory.current", str(3 * GIB))
    put(root, "sys/fs/cgroup/job/memory.stat", f"anon 12\ninactive_file {GIB}\n")
    machine = read_machine(root)
    assert (machine.total_bytes, machine.available_bytes) == (4 * GIB, 2 * GIB)


def test_version_1_memory_limit(root: Path) -> None:
    put(root, "proc/self/cgroup", "4:memory:/job\n")
    put(root, "sys/fs/cgroup/memory/job/memory.limit_in_bytes", str(2 * GIB))
    put(root, "sys/fs/cgroup/memory/job/memory.usage_in_bytes", str(3 * GIB))
    put(root, "sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712")
    machine = read_machine(root)
    assert (machine.total_bytes, machine.available_bytes) == (2 * GIB, 0)


def test_limits_above_the_machine_change_nothing(root: Path) -> None:
    put(root, "proc/self/cgroup", "0::/\n")
    put(root, "sys/fs/cgroup/memory.max", str(64 * GIB))
    put(root, "sys/fs/cgroup/memory.current", "0")
    assert read_machine(root).available_bytes == 8 * GIB


def test_limits_of_the_process_count_what_it_has_mapped(root: Path) -> None:
    put(root, "proc/self/status", f"VmSize:\t{GIB // 1024} kB\nVmData:\t  {GIB // 2048} kB\n")
    form = "{:26}{:21}{:21}bytes\n"
    put(root, "proc/self/limits", form.format("Max data size", "unlimited", "unlimited"))
    assert read_machine(root).available_bytes == 8 * GIB
    put(root, "proc/self/limits", form.format("Max data size", str(2 * GIB), "unlimited"))
    machine = read_machine(root)
    assert (machine.total_bytes, machine.available_bytes) == (2 * GIB, 3 * GIB // 2)
    put(root, "proc/self/limits", form.format("Max address space", str(3 * GIB), str(4 * GIB)))
    machine = read_machine(root)
    assert (machine.total_bytes, machine.available_bytes) == (3 * GIB, 2 * GIB)
    put(root, "proc/self/limits", form.format("Max data size", str(GIB // 4), str(GIB // 4)))
    assert read_machine(root).available_bytes == 0


def test_isa_names_what_changes_arithmetic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.platform, "machine", lambda: "x86_64")
    flags, isa = "fpu avx2 avx512f avx512_vnni avx512_bf16", "x86_64 avx2 avx512 vnni bf16"
    assert isa_of(f"{flags} amx_tile amx_bf16") == isa
    assert isa_of(f"{flags} amx_bf16 amx_tile amx_int8") == f"{isa} amx"
    assert isa_of("fpu sse") == "x86_64"


def test_an_empty_root_still_gives_a_machine(tmp_path: Path) -> None:
    machine = read_machine(tmp_path)
    assert machine.physical_cores >= 1
    assert machine.available_bytes == 0


def test_description_of_the_real_machine_names_its_parts() -> None:
    machine = read_machine()
    lines = dict(machine.describe())
    assert set(lines) >= {"cpu", "isa", "cores", "memory"}
    assert 1 <= machine.physical_cores <= machine.logical_cores
    assert 0 < machine.available_bytes <= machine.total_bytes


def test_no_driver_means_no_gpus() -> None:
    assert read_gpus("libcuda-that-is-not-there.so") == ()


def test_gpu_text() -> None:
    assert (
        str(Gpu(name="G", capability=(9, 0), total_bytes=80 * GIB)) == "G, capability 9.0, 80 GiB"
    )


@pytest.mark.gpu
def test_driver_and_torch_agree() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU that torch can use")
    gpus = read_gpus()
    assert len(gpus) == torch.cuda.device_count()
    assert gpus[0].capability == torch.cuda.get_device_capability(0)


def test_threads_are_set_and_checked() -> None:
    import torch

    before = torch.get_num_threads()
    try:
        set_threads(1)
        assert torch.get_num_threads() == 1
        with pytest.raises(ValueError, match="at least 1"):
            set_threads(0)
    finally:
        torch.set_num_threads(before)


def test_reading_the_machine_loads_no_torch() -> None:
    code = "import sys; from quire.hardware import cpu, threads; cpu.read_machine(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("given", "after"),
    [
        ({}, "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "7"),
        ({"OMP_WAIT_POLICY": "active"}, None),
    ],
)
def test_waiting_is_bounded_unless_the_user_says_how(
    given: dict[str, str], after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    bound_waiting()
    assert os.environ.get("GOMP_SPINCOUNT") == after
