"""Which native libraries of kernels are installed, and which of them this machine can run.

Loading one, and calling it, is `ops.cpu.library`. Nothing here needs torch.
"""

from __future__ import annotations

from pathlib import Path

from quire.config import env
from quire.protocol.errors import SettingsError

FOLDER = env.cpu_kernels() or Path(__file__).parent.parent / "ops" / "cpu" / "_lib"
NEEDS = {
    "amx": frozenset(("x86_64", "avx2", "avx512", "vnni", "bf16", "amx")),
    "avx512": frozenset(("x86_64", "avx2", "avx512", "vnni", "bf16")),
    "avx2": frozenset(("x86_64", "avx2")),
    "portable": frozenset[str](),
    "amx_emulated": frozenset(("x86_64", "avx2", "avx512", "vnni", "bf16")),
}
"""Best first: what the name of a machine's ISA must hold for a library.

`amx_emulated` is AMX's kernels on tiles in memory; `make tiles` builds it, and nothing else does.
"""


def path_of(isa: str) -> Path:
    """Where the library of an ISA is, or would be."""
    return FOLDER / f"libquire_{isa}.so"


def usable(machine_isa: str) -> list[str]:
    """The ISAs, best first, whose library is there and runs on a machine of this ISA, `Machine.isa`."""
    present = frozenset(machine_isa.split())
    return [isa for isa, needs in NEEDS.items() if needs <= present and path_of(isa).exists()]


def wanted(machine_isa: str) -> list[str]:
    """The usable ISAs in the order in which they are tried: all, one that QUIRE_CPU_ISA names, or none.

    Raises SettingsError if QUIRE_CPU_ISA names an ISA that this machine or installation lacks.
    """
    found, named = usable(machine_isa), env.cpu_isa()
    if named is None:
        return [isa for isa in found if isa != "amx_emulated"]
    if named == "none":
        return []
    if named not in found:
        raise SettingsError(
            f"QUIRE_CPU_ISA is {named!r}; on this machine it may be one of {[*found, 'none']}."
        )
    return [named]
