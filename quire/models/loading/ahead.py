"""Weights that native threads pack while this process imports its libraries, torch above all.

Only products whose numbers lie in a safetensors file as they are computed with; the others, and everything where
something is odd, are left to `models.loading.reader`. Nothing here imports torch before `packed` is called.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from quire.hardware.allocator import address_of, map_pages
from quire.models.loading.headers import TensorHeader, read_headers
from quire.models.loading.native_threads import NativeThreads, native_library
from quire.models.names import Piece, match
from quire.models.parameters import Parameter, parameters
from quire.models.registry import ModelDescription, weight_map_of
from quire.models.spec import DecoderSpec
from quire.ops.cpu.structs import DTYPES, NUMBERS, STRUCTS, Call
from quire.protocol.errors import ModelLoadError

logger = logging.getLogger(__name__)

T = TypeVar("T")

LEAST_BYTES = 64 << 20
"""Of weights that are worth it: loading this many takes about 50 ms."""
_CALL_BYTES = 4 << 20  # about what one call packs; threads take calls in turn
_UNMAP_BYTES, _UNMAP_REST_S = 32 << 20, 0.05
_ROWS = 32  # of a block: parts of a weight that begin elsewhere are not packed one by one
_PRODUCTS = (".qkv.weight", ".out.weight", ".gate_up.weight", ".up.weight", ".down.weight")
_ELEMENTS = {"bfloat16": "BF16", "float32": "F32", "float16": "F16"}
_NUMBER_BYTES = {"bfloat16": 2, "float32": 4, "float16": 2}


@dataclass(frozen=True)
class _Product:
    """One weight [N, K]: (first row, rows, where they stand in the checkpoint), and its bytes when packed."""

    parts: tuple[tuple[int, int, TensorHeader], ...]
    depth: int
    num_bytes: int
    begin: int


class Ahead(NativeThreads):
    """Products that are being packed; `close` when all were taken, or none shall be."""

    def __init__(self, products: Mapping[str, _Product], dtype: str, library: Any) -> None:
        """Begins. Raises OSError or MemoryError where it cannot."""
        total = max(one.begin + one.num_bytes for one in products.values())
        self._products = products
        self._memory, self._start = map_pages(total)
        share = library.quire_share
        share.argtypes = (ctypes.c_void_p, ctypes.c_int32, ctypes.c_void_p)
        files = {header.path for one in products.values() for _, _, header in one.parts}
        self._files = {path: _map_file(path) for path in files}
        jobs = sorted(self._jobs(dtype), key=lambda job: job[0])
        self._arguments = [job for _, job in jobs]
        self._calls = (Call * len(jobs))()
        for call, arguments in zip(self._calls, self._arguments, strict=True):
            call.operation = NUMBERS["pack_linear"]
            call.args = ctypes.addressof(arguments)
        super().__init__(len(jobs), lambda count, taken: share(self._calls, count, taken))

    def has(self, name: str) -> bool:
        """Whether a product is packed here."""
        return f"{name}.weight" in self._products

    def packed(self, name: str, room: Callable[[Callable[[int], Any]], T]) -> T:
        """What `room` makes in memory, uint8 [n], that is filled; helps to pack what is not packed yet."""
        self.finish()
        product = self._products[f"{name}.weight"]

        def take(num_bytes: int) -> Any:
            if num_bytes != product.num_bytes:
                raise RuntimeError(
                    f"{name}.weight was packed ahead into {product.num_bytes} bytes, and its product wants {num_bytes}"
                )
            torch = importlib.import_module("torch")
            begin = self._start + product.begin
            return torch.frombuffer(self._memory, dtype=torch.uint8)[begin : begin + num_bytes]

        return room(take)

    def add(self, name: str, parts: Sequence[Any]) -> None:
        """Keeps nothing for later starts."""

    def close(self) -> None:
        """Ends what is under way and lets the files go, which a thread does; memory that was taken stays."""
        super().close()
        files, self._files = list(self._files.values()), {}
        if files:
            threading.Thread(target=_unmap, args=(files,), name="quire-unmap", daemon=True).start()

    def _jobs(self, dtype: str) -> Iterator[tuple[tuple[Path, int], ctypes.Structure]]:
        """Calls, with the places in the files that they begin to read at."""
        each = _NUMBER_BYTES[dtype]
        base = address_of(self._memory) + self._start
        for product in self._products.values():
            deep = product.num_bytes // -(-_num_rows(product) // _ROWS) // _ROWS
            step = max(_CALL_BYTES // (product.depth * each) // _ROWS, 1) * _ROWS
            for first, rows, header in product.parts:
                for row in range(0, rows, step):
                    begin = header.begin + row * product.depth * each
                    yield (
                        (header.path, begin),
                        STRUCTS["pack_linear"](
                            weight=self._files[header.path][0] + begin,
                            out=base + product.begin + (first + row) * deep,
                            N=min(step, rows - row),
                            K=product.depth,
                            stride=product.depth,
                            dtype=DTYPES[dtype],
                            format=0,
                        ),
                    )


def begin_ahead(
    description: ModelDescription, *, dtype: str, isa: str | None, is_plain: bool, num_threads: int
) -> Ahead | None:
    """Begins to pack the weights of a checkpoint; None where there is nothing to gain, or it cannot be.

    isa       of the native library that computes, None if another provider does.
    is_plain  whether all products are computed with the checkpoint's own floats.
    """
    if isa is None or not is_plain or description.quantization is not None:
        return None
    if sys.platform != "linux" or description.spec.program is not None:
        return None
    try:
        products = _products(description, dtype)
        if sum(one.num_bytes for one in products.values()) < LEAST_BYTES:
            return None
        ahead = Ahead(products, dtype, native_library(isa))
    except (OSError, MemoryError, AttributeError, ModelLoadError) as error:
        logger.debug("weights are not packed ahead: %s", error)  # loading says what is wrong
        return None
    ahead.begin(num_threads)
    return ahead


def _products(description: ModelDescription, dtype: str) -> dict[str, _Product]:
    """The products that are packed as they lie in the files."""
    spec, folder = description.spec, Path(description.path)
    if not any(folder.glob("*.safetensors")):
        return {}
    headers = read_headers(folder)
    shapes = {name: header.shape for name, header in headers.items()}
    plan = match(weight_map_of(description), spec, shapes)
    found: dict[str, _Product] = {}
    begin = 0
    for name, parameter in parameters(spec).items():
        ours = _name_of_product(name, parameter, spec)
        if ours is None:
            continue
        product = _product(plan[name], parameter, headers, dtype, begin)
        if product is not None:
            found[ours] = product
            begin += product.num_bytes
    return found


def _name_of_product(name: str, parameter: Parameter, spec: DecoderSpec) -> str | None:
    """The name of the product that packs a parameter; None if that is none, or does more with it."""
    if name == "embedding.weight" and spec.tie_head:
        return "head.weight"
    if name == "head.weight":
        return name
    if parameter.group not in ("attention", "feed_forward") or ".experts." in name:
        return None
    return name if name.endswith(_PRODUCTS) else None


def _product(
    pieces: tuple[Piece, ...],
    parameter: Parameter,
    headers: Mapping[str, TensorHeader],
    dtype: str,
    begin: int,
) -> _Product | None:
    parts = []
    for piece in pieces:
        header = headers[piece.source]
        is_plain = piece.fold == "none" and not piece.transpose and not piece.skip
        if not is_plain or piece.squeeze or piece.expert is not None:
            return None
        if header.element != _ELEMENTS[dtype]:
            return None
        first = sum(part[0] for part in parameter.parts[: piece.parts[0]])
        parts.append((first, sum(parameter.parts[part][0] for part in piece.parts), header))
    parts.sort(key=lambda part: part[0])
    if any(first % _ROWS for first, _, _ in parts) or not parts:
        return None
    rows, depth = parameter.shape
    num_bytes = -(-rows // _ROWS) * _ROWS * -(-depth // _ROWS) * _ROWS * _NUMBER_BYTES[dtype]
    return _Product(tuple(parts), depth, num_bytes, begin)


def _num_rows(product: _Product) -> int:
    return sum(rows for _, rows, _ in product.parts)


def _map_file(path: Path) -> tuple[int, int]:
    """Address and size of a file in memory, to be read only. Raises OSError."""
    read, shared = 1, 1  # PROT_READ, MAP_SHARED
    with path.open("rb") as file:
        size = path.stat().st_size
        address = _libc().mmap(None, size, read, shared, file.fileno(), 0)
    if address in (None, ctypes.c_void_p(-1).value):
        raise OSError(f"{path} cannot be mapped")
    return address, size


def _unmap(files: Sequence[tuple[int, int]]) -> None:
    """A piece at a time with rests between: 1.2 GB take 50 ms, for which the first step would wait otherwise."""
    libc = _libc()
    for address, size in files:
        for begin in range(0, size, _UNMAP_BYTES):
            time.sleep(_UNMAP_REST_S)
            libc.munmap(address + begin, min(_UNMAP_BYTES, size - begin))


def _libc() -> Any:
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int),
        ctypes.c_long,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc
