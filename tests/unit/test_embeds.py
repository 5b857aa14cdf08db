"""Reading prompts given as embeddings: every form gives the same rows, and a wrong file is refused by name."""

from __future__ import annotations

import base64
import io
import json
import pickle
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from quire.frontend.embeds import placeholders, read_embeds, tensor_of
from quire.protocol.errors import InvalidRequestError

SIZE, MOST = 8, 12
ROWS = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(1)).to(torch.bfloat16)


def read(value: Any) -> np.ndarray:
    return read_embeds(value, hidden_size=SIZE, max_rows=MOST)


def npy(array: np.ndarray, version: tuple[int, int] = (1, 0)) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=version)
    return buffer.getvalue()


def tensors(header: dict[str, Any] | bytes, body: bytes) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + body


def one(dtype: str, shape: list[Any], end: int) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}}


FLOAT = ROWS.float()
FORMS = {
    "bfloat16 tensor": ROWS,
    "float32 tensor": FLOAT,
    "a view": torch.stack([FLOAT, FLOAT], dim=1)[:, 1],
    "with a batch of one": ROWS[None],
    "with a gradient": FLOAT.clone().requires_grad_(),
    "numpy": FLOAT.numpy(),
    "safetensors": safetensors.torch.save({"prompt_embeds": ROWS}),
    "safetensors with notes": safetensors.torch.save({"e": FLOAT}, metadata={"made": "here"}),
    "npy": npy(FLOAT.numpy()),
    "npy 2.0": npy(FLOAT.numpy(), (2, 0)),
    "npy 3.0": npy(FLOAT.numpy()[None], (3, 0)),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_rows(name: str) -> None:
    value = FORMS[name]
    assert np.array_equal(read(value), FLOAT.numpy())
    if isinstance(value, bytes):
        assert np.array_equal(read(base64.b64encode(value).decode()), FLOAT.numpy())


def test_halves_are_widened_exactly() -> None:
    half = FLOAT.half()
    for value in (half, safetensors.torch.save({"x": half}), npy(half.numpy())):
        assert np.array_equal(read(value), half.float().numpy())


def torch_saved() -> bytes:
    buffer = io.BytesIO()
    torch.save(ROWS, buffer)
    return buffer.getvalue()


def torch_sparse() -> bytes:
    """Indices outside: what made other servers write out of bounds."""
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[-3], [9]]), torch.ones(1), (5, SIZE), check_invariants=False
    )
    buffer = io.BytesIO()
    torch.save(sparse, buffer)
    return buffer.getvalue()


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("it was unpickled",))


FULL = FLOAT.numpy().tobytes()
WRONG = {
    "torch.save": (torch_saved(), "safetensors"),
    "torch.save of a sparse one": (torch_sparse(), "safetensors"),
    "old torch.save": (pickle.dumps(Evil()), "hold code"),
    "npy of objects": (b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n" + pickle.dumps(Evil()), "dtype"),  # noqa: E501
    "empty": (b"", "neither"),
    "text": (b"hello, world", "neither"),
    "header longer than the file": (struct.pack("<Q", 10**9) + b"{}", "neither"),
    "header of 2**63": (struct.pack("<Q", 2**63) + b"{}", "neither"),
    "header no JSON": (tensors(b"{'x': 1}", b""), "JSON"),
    "header nested deep": (tensors(b'{"x":' * 9000 + b"1" + b"}" * 9000, b""), "JSON"),
    "no tensor": (tensors({"__metadata__": {}}, b""), "0 tensors"),
    "two tensors": (safetensors.torch.save({"a": ROWS, "b": FLOAT}), "2 tensors"),
    "header a list inside": (tensors({"x": [1]}, b""), "tensors"),
    "double": (safetensors.torch.save({"x": ROWS.double()}), "F64"),
    "complex": (tensors(one("C64", [5, SIZE], 320), b"\0" * 320), "C64"),
    "integers": (safetensors.numpy.save({"x": np.ones((5, SIZE), np.int32)}), "I32"),
    "dtype a number": (tensors(one(7, [5, SIZE], 160), FULL), "dtype"),  # type: ignore[arg-type]
    "negative shape": (tensors(one("F32", [-5, -SIZE], 160), FULL), "shape"),
    "shape of texts": (tensors(one("F32", ["5", SIZE], 160), FULL), "shape"),
    "shape of truth": (tensors(one("F32", [True, SIZE], 160), FULL), "shape"),
    "too few bytes": (tensors(one("F32", [5, SIZE], 160), FULL[:-4]), "156"),
    "too many bytes": (tensors(one("F32", [5, SIZE], 160), FULL + b"\0"), "161"),
    "shape larger than the data": (tensors(one("F32", [6, SIZE], 160), FULL), "160 bytes"),
    "rows of 2**40": (tensors(one("F32", [2**40, SIZE], 160), FULL), "rows"),
    "offsets shifted": (tensors({"x": {"dtype": "F32", "shape": [5, SIZE], "data_offsets": [4, 160]}}, FULL), "offsets"),  # noqa: E501
    "column order": (npy(np.asfortranarray(FLOAT.numpy())), "column"),
    "big-endian": (npy(FLOAT.numpy().astype(">f4")), ">f4"),
    "npy of double": (npy(FLOAT.numpy().astype("<f8")), "<f8"),
    "npy cut": (npy(FLOAT.numpy())[:-3], "bytes of numbers"),
    "npy header with code": (b"\x93NUMPY\x01\x00v\x00" + b"{'descr': __import__('os').abort(), 'fortran_order': False}".ljust(118), "header"),  # noqa: E501
    "npy version 9": (b"\x93NUMPY\x09\x00v\x00" + b" " * 200, "version"),
    "npy of huge sizes": (b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 8), }".ljust(118), "shape"),  # noqa: E501
    "wrong hidden size": (ROWS[:, :7], "[5, 7]"),
    "one dimension": (ROWS[0], "[8]"),
    "batch of two": (ROWS[None].repeat(2, 1, 1), "[2, 5, 8]"),
    "no rows": (ROWS[:0], "0 rows"),
    "too many rows": (ROWS.repeat(3, 1), "15 rows"),
    "NaN": (ROWS * float("nan"), "finite"),
    "infinite in bfloat16": (safetensors.torch.save({"x": ROWS * float("inf")}), "finite"),
    "sparse": (FLOAT.to_sparse(), "dense"),
    "integers in a tensor": (ROWS.int(), "int32"),
    "not base64": ("*" * 40, "base64"),
    "larger than the model takes": ("A" * 4_000_000, "at most"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_one_is_refused_and_says_why(name: str) -> None:
    value, words = WRONG[name]
    with pytest.raises(InvalidRequestError) as caught:
        read(value)
    assert caught.value.param == "prompt_embeds"
    assert words in str(caught.value) and len(str(caught.value)) < 400


def test_a_quantized_tensor_is_refused() -> None:
    quantized = torch.quantize_per_tensor(FLOAT, 0.1, 0, torch.qint8)
    with pytest.raises(InvalidRequestError, match="qint8"):
        read(quantized)


@given(st.binary(max_size=300))
@settings(max_examples=400, deadline=None)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for value in (data, b"\x93NUMPY" + data, struct.pack("<Q", len(data)) + data):
        try:
            read(value)
        except InvalidRequestError as error:
            assert error.param == "prompt_embeds"


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_file_with_changed_bytes_is_read_or_refused(data: st.DataObject) -> None:
    for whole in (FORMS["safetensors"], FORMS["npy"]):
        raw = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        try:
            assert read(bytes(raw)).shape[1] == SIZE
        except InvalidRequestError as error:
            assert error.param == "prompt_embeds"


def test_a_list_is_no_tensor() -> None:
    with pytest.raises(TypeError, match="list"):
        read([[1.0]])


def test_ids_and_rows_may_be_mixed() -> None:
    assert placeholders({}, 3) == ([0, 0, 0], (0, 1, 2))
    mixed = {"prompt_token_ids": [7, 8, 9], "prompt_is_token_ids": [True, False, True]}
    assert placeholders(mixed, 3) == ([7, 0, 9], (1,))
    for wrong in ({"prompt_token_ids": [7]}, {"prompt_token_ids": None}):
        with pytest.raises(InvalidRequestError, match="3 rows"):
            placeholders(mixed | wrong, 3)


def test_rows_travel_as_they_are() -> None:
    ref = tensor_of(read(ROWS))
    assert (ref.dtype, ref.shape) == ("float32", (5, SIZE))
    assert np.array_equal(np.frombuffer(ref.data, "<f4").reshape(5, SIZE), FLOAT.numpy())
