"""Prompts given as embeddings: arrays of a program, and files that came over the wire as base64.

Nothing is unpickled: headers of safetensors and .npy are read by hand, and other files are refused.
What the rows do is `worker.encoder`'s business.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quire.protocol.checks import refuse, shown
from quire.protocol.request import TensorRef

Rows = NDArray[np.float32]

_PARAM = "prompt_embeds"
_MAX_HEADER = 1 << 16  # bytes; a header of one tensor takes less than 200
_KINDS = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_NPY = re.compile(
    r"\{'descr': '([<>=|]?\w+)', 'fortran_order': (True|False), 'shape': \(([\d, ]*)\),? ?\}\s*"
)
_FORMS = "send a safetensors file with one tensor, or a .npy file, as base64"


def read_embeds(value: Any, *, hidden_size: int, max_rows: int) -> Rows:
    """The rows [T, hidden_size] of a prompt, 1 ≤ T ≤ max_rows, all finite.

    value  an array or tensor [T, hidden] or [1, T, hidden] of float32, float16 or bfloat16; or a file of
           such an array, as base64 text or as bytes.
    Raises InvalidRequestError for `prompt_embeds`, or TypeError for what is none of these.
    """
    if isinstance(value, (str, bytes, bytearray, memoryview)):
        room = _MAX_HEADER + 16 + max_rows * hidden_size * 4
        rows = _shaped(*_read_file(_bytes(value, room)), hidden_size, max_rows)
    else:
        rows = _of_array(value, hidden_size, max_rows)
    if not bool(np.isfinite(rows).all()):
        refuse(_PARAM, "prompt_embeds has entries that are not finite; send numbers only")
    return rows


def tensor_of(rows: Rows) -> TensorRef:
    """The rows as they travel to the engine."""
    return TensorRef(
        dtype="float32", shape=rows.shape, data=rows.astype("<f4", copy=False).tobytes()
    )


def placeholders(fields: Mapping[str, Any], num_rows: int) -> tuple[list[int], tuple[int, ...]]:
    """The ids that stand for a prompt of embeddings, and the positions where rows replace them.

    With prompt_token_ids and their mask prompt_is_token_ids, ids whose mask is true speak for themselves.
    """
    ids: Any = fields.get("prompt_token_ids")
    mask: Any = fields.get("prompt_is_token_ids")
    if mask is None:
        return [0] * num_rows, tuple(range(num_rows))
    mask = mask.tolist() if hasattr(mask, "tolist") else list(mask)
    if ids is None or len(ids) != num_rows or len(mask) != num_rows:
        refuse(
            _PARAM,
            f"prompt_embeds has {num_rows} rows; prompt_token_ids and prompt_is_token_ids must have as many",
        )
    if not all(isinstance(one, (bool, int)) for one in mask):
        refuse(_PARAM, "prompt_is_token_ids must hold only true and false")
    chosen = [one if is_id else 0 for one, is_id in zip(ids, mask)]
    return chosen, tuple(place for place, is_id in enumerate(mask) if not is_id)


def _bytes(value: Any, room: int) -> bytes:
    """The file, if it is not larger than `room`."""
    size = len(value) * 3 // 4 if isinstance(value, str) else len(value)
    if size > room:
        refuse(
            _PARAM,
            f"prompt_embeds is a file of {size} bytes; this model takes at most {room} bytes",
        )
    if not isinstance(value, str):
        return bytes(value)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        refuse(_PARAM, f"prompt_embeds is not valid base64; {_FORMS}")


def _read_file(data: bytes) -> tuple[str, tuple[int, ...], memoryview]:
    """Format of the numbers, shape, and the numbers themselves. Formats are the values of _KINDS."""
    if data.startswith(b"\x93NUMPY"):
        return _read_npy(data)
    if data.startswith((b"PK\x03\x04", b"\x80")):
        refuse(
            _PARAM,
            "prompt_embeds is a file of torch.save or pickle, which is never read here because it can hold "
            f"code; {_FORMS}: safetensors.torch.save({{'prompt_embeds': tensor}})",
        )
    return _read_safetensors(data)


def _read_safetensors(data: bytes) -> tuple[str, tuple[int, ...], memoryview]:
    """Source of the format: github.com/huggingface/safetensors, README, "Format"."""
    length = int.from_bytes(data[:8], "little")
    if len(data) < 10 or not 2 <= length <= min(_MAX_HEADER, len(data) - 8) or data[8:9] != b"{":
        refuse(_PARAM, f"prompt_embeds is neither a safetensors nor a .npy file; {_FORMS}")
    try:
        header = json.loads(data[8 : 8 + length])
    except (ValueError, RecursionError):
        refuse(_PARAM, "prompt_embeds has a safetensors header that is not valid JSON")
    tensors = [one for name, one in header.items() if name != "__metadata__"]
    if len(tensors) != 1 or not isinstance(tensors[0], dict):
        refuse(_PARAM, f"prompt_embeds is a file of {len(tensors)} tensors; send exactly one")
    dtype: Any = tensors[0].get("dtype")
    shape: Any = tensors[0].get("shape")
    offsets: Any = tensors[0].get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _KINDS:
        refuse(_PARAM, f"prompt_embeds has dtype {shown(dtype)}; send F32, F16 or BF16")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] != 0:
        refuse(_PARAM, "prompt_embeds has a safetensors header with a wrong shape or wrong offsets")
    body = memoryview(data)[8 + length :]
    if offsets[1] != len(body):
        refuse(_PARAM, f"prompt_embeds ends at byte {offsets[1]}, but the file has {len(body)}")
    return _KINDS[dtype], tuple(shape), body


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(one) is int and 0 <= one < 2**48 for one in values)


def _read_npy(data: bytes) -> tuple[str, tuple[int, ...], memoryview]:
    """Source of the format: numpy.org, "NEP 1: A simple file format for NumPy arrays"."""
    width = 2 if data[6:7] == b"\x01" else 4
    start = 8 + width
    length = int.from_bytes(data[8:start], "little")
    if data[6:7] not in (b"\x01", b"\x02", b"\x03") or not length <= _MAX_HEADER:
        refuse(_PARAM, "prompt_embeds is a .npy file of an unknown version")
    found = _NPY.fullmatch(data[start : start + length].decode("latin-1"))
    if found is None:
        refuse(_PARAM, "prompt_embeds is a .npy file whose header cannot be read")
    kind, is_fortran, sizes = found.groups()
    if kind not in ("<f4", "<f2"):
        refuse(
            _PARAM, f"prompt_embeds has dtype {shown(kind)}; send <f4 (float32) or <f2 (float16)"
        )
    if is_fortran == "True":
        refuse(
            _PARAM, "prompt_embeds is stored column by column; send numpy.ascontiguousarray of it"
        )
    if any(len(one.strip()) > 15 for one in sizes.split(",")):
        refuse(_PARAM, "prompt_embeds is a .npy file with a wrong shape")
    shape = tuple(int(one) for one in sizes.split(",") if one.strip())
    return kind, shape, memoryview(data)[start + length :]


def _shaped(
    kind: str, shape: tuple[int, ...], body: memoryview, hidden_size: int, max_rows: int
) -> Rows:
    """The numbers as rows, once shape and size agree with the model and with each other."""
    num_rows = _check_shape(shape, hidden_size, max_rows)
    flat = np.frombuffer(body, dtype=np.uint8)
    if flat.size != num_rows * hidden_size * np.dtype(kind).itemsize:
        refuse(
            _PARAM,
            f"prompt_embeds has shape {list(shape)}, but {flat.size} bytes of numbers follow",
        )
    values = flat.view(np.dtype(kind)).reshape(num_rows, hidden_size)
    return _widened(values) if kind == "<u2" else values.astype(np.float32)


def _widened(values: NDArray[np.uint16]) -> Rows:
    """bfloat16 bits as float32, exactly."""
    return (values.astype(np.uint32) << 16).view(np.float32)


def _of_array(value: Any, hidden_size: int, max_rows: int) -> Rows:
    """An array of a program; a tensor is widened by its own library, which is then there already."""
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise TypeError(
            f"prompt_embeds must be a tensor or an array [tokens, hidden], not {type(value).__name__}"
        )
    layout = str(getattr(value, "layout", "torch.strided"))
    name = str(value.dtype).removeprefix("torch.")
    if name not in ("float32", "float16", "bfloat16") or layout != "torch.strided":
        refuse(
            _PARAM,
            f"prompt_embeds is a tensor of {name} ({layout.removeprefix('torch.')}); it must be a dense (strided) "
            "one of float32, float16 or bfloat16",
        )
    num_rows = _check_shape(tuple(int(one) for one in value.shape), hidden_size, max_rows)
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    return np.ascontiguousarray(value, dtype=np.float32).reshape(num_rows, hidden_size)


def _check_shape(shape: tuple[int, ...], hidden_size: int, max_rows: int) -> int:
    """The number of rows. A leading dimension of 1 is left out."""
    plain = shape[1:] if len(shape) == 3 and shape[0] == 1 else shape
    if len(plain) != 2 or plain[1] != hidden_size:
        refuse(
            _PARAM,
            f"prompt_embeds has shape [{', '.join(map(str, shape[:4]))}]; this model takes [tokens, {hidden_size}]",
        )
    if not 1 <= plain[0] <= max_rows:
        refuse(
            _PARAM,
            f"prompt_embeds has {plain[0]} rows; it must have 1 to {max_rows}, so that one token can follow",
        )
    return plain[0]
