"""Which NVIDIA GPUs this process sees, asked of the driver without torch.

Choosing a device is `engine.resolve`; memory on it belongs to `worker.memory`.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # numbers of CUdevice_attribute in cuda.h


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU. `capability` is the driver's compute capability, (9, 0) for Hopper."""

    name: str
    capability: tuple[int, int]
    total_bytes: int

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name}, capability {major}.{minor}, {self.total_bytes / 2**30:.0f} GiB"


def read_gpus(library: str = "libcuda.so.1") -> tuple[Gpu, ...]:
    """The GPUs in the driver's order, those that CUDA_VISIBLE_DEVICES leaves; empty without a driver.

    Starts the driver's part of this process, but makes no context and takes no device memory.
    """
    try:
        cuda = ctypes.CDLL(library)
    except OSError:
        return ()
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return ()
    found = (_read_gpu(cuda, number) for number in range(count.value))
    return tuple(gpu for gpu in found if gpu is not None)


def _read_gpu(cuda: ctypes.CDLL, number: int) -> Gpu | None:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name = ctypes.create_string_buffer(256)
    size = ctypes.c_size_t()
    failed = (
        cuda.cuDeviceGet(ctypes.byref(device), number)
        or cuda.cuDeviceGetName(name, len(name), device)
        or cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
        or cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    )
    if failed:
        return None
    return Gpu(
        name=name.value.decode(errors="replace"),
        capability=(major.value, minor.value),
        total_bytes=size.value,
    )
