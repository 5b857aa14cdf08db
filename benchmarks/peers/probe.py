"""The state of the machine at one moment, measured in a tenth of a second: its speed moves by a factor of two.

The measuring itself is `probe.c`, compiled on first use; what it is compared with is the reader's business.
"""

from __future__ import annotations

import ctypes
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent / "probe.c"


@dataclass(frozen=True)
class MachineState:
    """read_gbps of memory, and fma_tflops on registers, of the kind of instructions that is named."""

    read_gbps: float
    fma_tflops: float
    fma_kind: str


class Probe:
    """A compiled probe. Raises RuntimeError with the compiler's words if it cannot be made."""

    def __init__(self, folder: Path, num_threads: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / "libprobe.so"
        if not library.exists() or library.stat().st_mtime < SOURCE.stat().st_mtime:
            compile_probe(library)
        self._library = ctypes.CDLL(str(library))
        self._library.probe_read_gbps.restype = ctypes.c_double
        self._library.probe_fma_tflops.restype = ctypes.c_double
        self._library.probe_fma_kind.restype = ctypes.c_char_p
        self._num_threads = num_threads

    def __call__(self) -> MachineState:
        return MachineState(
            self._library.probe_read_gbps(self._num_threads),
            self._library.probe_fma_tflops(self._num_threads),
            self._library.probe_fma_kind().decode(),
        )


def compile_probe(library: Path) -> None:
    """Builds the probe for this processor."""
    options = ["-O3", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC", "-pthread"]
    command = ["gcc", *options, "-o", str(library), str(SOURCE)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RuntimeError("the probe needs gcc, which is not installed") from error
    if done.returncode:
        raise RuntimeError(f"gcc cannot build the probe:\n{done.stderr}")
