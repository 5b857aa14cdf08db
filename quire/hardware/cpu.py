"""What this machine's processor and memory are, as far as this process may use them.

GPUs are asked in `hardware.cuda`; the number of arithmetic threads is set in `hardware.threads`.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from quire.hardware.cuda import Gpu, read_gpus
from quire.hardware.kernels import wanted

_ISA_FLAGS = (
    ("avx2", "avx2"),
    ("avx512f", "avx512"),
    ("avx512_vnni", "vnni"),
    ("avx512_bf16", "bf16"),
    ("amx_tile amx_bf16 amx_int8", "amx"),
    ("asimd", "neon"),
    ("sve", "sve"),
)
"""The kernel's names of flags and ours for all of them; an ISA's name lists those that are there, in this order."""

_UNLIMITED = 1 << 60  # bytes; version 1 of cgroups writes a number near 2^63 for "no limit"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine, as seen once at start.

    isa              what may fix the bits of an answer: architecture and vector extensions.
    physical_cores   cores that this process may use: affinity, one thread a core, cgroup quota.
    kernels          the ISA of the native library that computes here; empty for torch.
    available_bytes  memory that may still be taken: the kernel's figure, every cgroup limit, and the
                     limits of this process (`ulimit -d`, `ulimit -v`), less what it has mapped so far.
    """

    isa: str
    cpu_name: str
    logical_cores: int
    physical_cores: int
    total_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...] = ()
    kernels: str = ""

    @property
    def num_gpus(self) -> int:
        return len(self.gpus)

    def is_native(self, device: str | None, overrides: Mapping[str, str]) -> bool:
        """Whether the native library computes everything on `device`; `overrides` are of kernels."""
        return bool(self.kernels) and device == "cpu" and set(overrides.values()) <= {"cpu"}

    def describe(self) -> list[tuple[str, str]]:
        """(name, value) lines for a start-up table."""
        lines = [
            ("cpu", self.cpu_name),
            ("isa", self.isa),
            ("kernels", self.kernels or "none: through torch"),
            ("cores", f"{self.physical_cores} physical, {self.logical_cores} logical usable"),
            (
                "memory",
                f"{self.available_bytes / 2**30:.1f} GiB free of {self.total_bytes / 2**30:.1f} GiB",
            ),
        ]
        lines += [(f"gpu {i}", str(gpu)) for i, gpu in enumerate(self.gpus)]
        return lines


def read_machine(root: Path = Path("/")) -> Machine:
    """Looks at the machine. `root` is where proc and sys are found. Raises nothing for a missing file."""
    cpuinfo = _read(root / "proc/cpuinfo")
    usable = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    if not usable:
        usable = list(range(os.cpu_count() or 1))
    total, available = _memory(root)
    cores = _num_cores(root, usable)
    quota = _cpu_quota(root)
    if quota is not None:
        cores = max(1, min(cores, int(quota)))
    isa = isa_of(_field(cpuinfo, "flags") or _field(cpuinfo, "Features"))
    return Machine(
        isa=isa,
        kernels=next(iter(wanted(isa)), ""),
        cpu_name=_field(cpuinfo, "model name") or platform.processor() or platform.machine(),
        logical_cores=len(usable),
        physical_cores=cores,
        total_bytes=total,
        available_bytes=available,
        gpus=read_gpus(),
    )


def isa_of(flags: str) -> str:
    """The ISA's name from the kernel's list of flags, `x86_64 avx2 avx512` for one."""
    present = frozenset(flags.split())
    ours = (name for needed, name in _ISA_FLAGS if present.issuperset(needed.split()))
    return " ".join([platform.machine(), *ours])


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def _field(cpuinfo: str, name: str) -> str:
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _num_cores(root: Path, usable: list[int]) -> int:
    """Distinct cores among the usable logical processors."""
    cores = set()
    for number in usable:
        siblings = _read(root / f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list")
        cores.add(siblings.strip() or str(number))
    return len(cores)


def _groups(root: Path, controller: str) -> Iterator[tuple[int, Path]]:
    """(version, folder) of this process's cgroups that hold `controller`, from its own up to the mount.

    In a container the path in /proc may be the host's; then only the mount itself is found.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if controllers == "":
            version, mounts = 2, ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        elif controller in controllers.split(","):
            version, mounts = 1, [f"sys/fs/cgroup/{controllers}", f"sys/fs/cgroup/{controller}"]
        else:
            continue
        for mount in {root / name for name in mounts}:
            folder = mount / path.lstrip("/")
            while folder != mount and mount in folder.parents:
                if folder.is_dir():
                    yield version, folder
                folder = folder.parent
            yield version, mount


def _cpu_quota(root: Path) -> float | None:
    """Processors' worth of time that the tightest cgroup allows; None without a limit."""
    quotas = []
    for version, folder in _groups(root, "cpu"):
        if version == 2:
            words = _read(folder / "cpu.max").split()
        else:
            words = [
                _read(folder / "cpu.cfs_quota_us").strip(),
                _read(folder / "cpu.cfs_period_us").strip(),
            ]
        if len(words) == 2 and words[0].isdigit() and words[1].isdigit() and int(words[1]) > 0:
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def _memory(root: Path) -> tuple[int, int]:
    """(total, available) bytes under every limit that holds for this process."""
    meminfo = _read(root / "proc/meminfo")
    total = _kilobytes(meminfo, "MemTotal:")
    available = _kilobytes(meminfo, "MemAvailable:")
    for version, folder in _groups(root, "memory"):
        limit_name, used_name, cached_name = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        limit = _read(folder / limit_name).strip()
        if not limit.isdigit() or int(limit) >= _UNLIMITED:
            continue
        used = _read(folder / used_name).strip()
        cached = _number_after(_read(folder / "memory.stat"), cached_name)
        free = int(limit) - (int(used) if used.isdigit() else 0) + cached
        total = min(total, int(limit))
        available = min(available, max(0, free))
    for limit_bytes, used_bytes in _process_limits(root):
        total = min(total, limit_bytes)
        available = min(available, max(0, limit_bytes - used_bytes))
    return total, available


def _process_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, used) bytes of each memory limit that the kernel enforces on this process alone.

    Used is what the process mapped, touched or not, since that is what the kernel compares.
    """
    status = _read(root / "proc/self/status")
    for line in _read(root / "proc/self/limits").splitlines():
        for words, used in (("Max data size ", "VmData:"), ("Max address space ", "VmSize:")):
            soft = line.removeprefix(words).split()[:1]
            if line.startswith(words) and soft and soft[0].isdigit():
                yield int(soft[0]), _kilobytes(status, used)


def _kilobytes(text: str, name: str) -> int:
    return _number_after(text, name) * 1024


def _number_after(text: str, name: str) -> int:
    """The number in the line that starts with the word `name`; 0 without one."""
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdigit():
            return int(words[1])
    return 0
