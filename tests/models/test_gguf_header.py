"""GGUF files that are damaged or hostile: each is refused, quickly, by a sentence that names what is wrong."""

from __future__ import annotations

import contextlib
import random
import struct
import time
import tracemalloc
from pathlib import Path

import pytest

from quire.models.loading.gguf.header import read_all, read_header
from quire.models.registry import describe
from quire.protocol.errors import ModelLoadError


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def setting(name: str, kind: int, body: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + body


def tensor(
    name: str = "a.weight", shape: tuple[int, ...] = (32, 2), kind: int = 8, offset: int = 0
) -> bytes:
    sizes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + sizes + struct.pack("<IQ", kind, offset)


def file_of(
    settings: list[bytes],
    tensors: list[bytes],
    *,
    numbers: int = 68,
    version: int = 3,
    counts: tuple[int, int] | None = None,
) -> bytes:
    num_tensors, num_settings = counts or (len(tensors), len(settings))
    head = b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_settings)
    head += b"".join(settings) + b"".join(tensors)
    return head + b"\0" * (-len(head) % 32) + b"\1" * numbers


GOOD = [setting("general.architecture", 8, text("llama"))]
NESTED = struct.pack("<IQ", 9, 1) * 1000

CASES: dict[str, tuple[bytes, str]] = {
    "magic": (b"GGML" + bytes(40), "is not a GGUF file"),
    "empty": (b"", "is not a GGUF file"),
    "version": (file_of(GOOD, [], version=9), "version 9 is not known"),
    "big_endian": (file_of(GOOD, [], version=3 << 24), "big-endian"),
    "settings": (file_of(GOOD, [], counts=(0, 2**60)), f"number of settings is {2**60}"),
    "tensors": (file_of(GOOD, [], counts=(2**63, 1)), f"number of tensors is {2**63}"),
    "text": (
        file_of([setting("x", 8, struct.pack("<Q", 2**40))], []),
        f"x is {2**40}, more than",
    ),
    "name": (file_of([struct.pack("<Q", 2**62)], []), "length of the name of a setting"),
    "list": (file_of([setting("x", 9, struct.pack("<IQ", 5, 2**61))], []), "length of 'x'"),
    "texts": (file_of([setting("x", 9, struct.pack("<IQ", 8, 2**50))], []), "length of 'x'"),
    "nested": (file_of([setting("x", 9, NESTED)], []), "lists more than 3 deep"),
    "kind": (file_of([setting("x", 77, b"")], []), "type 77, which is not known"),
    "twice": (file_of([*GOOD, *GOOD], []), "'general.architecture' is there twice"),
    "alignment": (
        file_of([setting("general.alignment", 4, struct.pack("<I", 0))], []),
        "general.alignment is 0",
    ),
    "axes": (file_of(GOOD, [tensor(shape=(1,) * 5)]), "has 5 axes"),
    "zero": (file_of(GOOD, [tensor(shape=(32, 0))]), "cannot have the shape"),
    "overflow": (file_of(GOOD, [tensor(shape=(2**32, 2**32, 32))]), "cannot have the shape"),
    "blocks": (file_of(GOOD, [tensor(shape=(33, 2))]), "whole blocks of 32"),
    "type": (file_of(GOOD, [tensor(kind=4)]), "of type 4, which is not known"),
    "offset": (file_of(GOOD, [tensor(offset=2**63)]), "cut short"),
    "crooked": (file_of(GOOD, [tensor(offset=8)]), "begins at 8"),
    "short": (file_of(GOOD, [tensor()], numbers=67), "cut short, download it again"),
    "same_name": (file_of(GOOD, [tensor(), tensor(offset=96)], numbers=200), "is there twice"),
    "shared": (
        file_of(GOOD, [tensor(), tensor("b", offset=32)], numbers=200),
        "'a.weight' and 'b' share bytes",
    ),
}


def test_a_whole_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(file_of(GOOD, [tensor()]))
    header = read_header(tmp_path / "m.gguf")
    assert header.values == {"general.architecture": "llama"}
    assert header.tensors["a.weight"].shape == (2, 32)
    assert header.tensors["a.weight"].num_bytes == 68


@pytest.mark.parametrize("name", sorted(CASES))
def test_broken_files_are_refused(name: str, tmp_path: Path) -> None:
    data, message = CASES[name]
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    tracemalloc.start()
    start = time.process_time()
    with pytest.raises(ModelLoadError, match=message) as caught:
        describe(str(path))
    took, (_, peak) = time.process_time() - start, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "m.gguf" in str(caught.value)
    assert took < 5.0
    assert peak < 64 << 20


def test_changed_bytes_never_escape(tmp_path: Path) -> None:
    """Any damage of the header ends in our error or in a file that is read."""
    whole = file_of(
        [*GOOD, setting("x", 9, struct.pack("<IQ", 8, 2) + text("ab") + text("c"))],
        [tensor(), tensor("b.weight", offset=96)],
        numbers=200,
    )
    generator = random.Random(7)
    path = tmp_path / "m.gguf"
    for _ in range(600):
        data = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            data[generator.randrange(len(data))] = generator.choice((0, 1, 8, 9, 127, 255))
        path.write_bytes(data[: generator.randint(len(data) // 2, len(data))])
        with contextlib.suppress(ModelLoadError):
            read_header(path)


def test_parts_of_a_split_model(tmp_path: Path) -> None:
    count = setting("split.count", 2, struct.pack("<H", 2))
    first, second = (tmp_path / f"m-0000{n}-of-00002.gguf" for n in (1, 2))
    first.write_bytes(file_of([*GOOD, count], [tensor()]))
    with pytest.raises(ModelLoadError, match=r"lacks its part m-00002-of-00002\.gguf"):
        read_all(first)
    second.write_bytes(file_of([], [tensor("b.weight")]))
    assert set(read_all(first).tensors) == {"a.weight", "b.weight"}
    with pytest.raises(ModelLoadError, match="give the first"):
        (tmp_path / "alone.gguf").write_bytes(file_of([*GOOD, count], [tensor()]))
        read_all(tmp_path / "alone.gguf")
