"""Arguments that a request brings for the operator's own code: sizes, and what that code says of them.

What logits processors are is `protocol.logits_processors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from quire.protocol.checks import refuse, shown
from quire.protocol.errors import InvalidRequestError
from quire.protocol.logits_processors import LogitsProcessor
from quire.protocol.params import SamplingParams

_MAX_KEYS = 32
_MAX_KEY_CHARS = 64
_MAX_CHARS = 4096
_MAX_ITEMS = 1024


def check_custom(
    params: SamplingParams, processors: Sequence[type[LogitsProcessor]], *, strict: bool
) -> None:
    """Raises InvalidRequestError for arguments that nobody reads, that are too large, or that a processor refuses.

    strict  a client asks: values are texts, numbers, truth values and lists of them, of limited size.
    """
    if strict and params.extra_args:
        if not processors:
            refuse(
                "vllm_xargs",
                "vllm_xargs are for logits processors, and none is loaded; start with --logits-processors, or "
                "leave them out",
            )
        _check_sizes(params.extra_args)
    for processor in processors:
        try:
            processor.validate_params(params)
        except InvalidRequestError:
            raise
        except ValueError as error:
            refuse("extra_args", f"{processor.__name__} refuses the request: {error}")


def _check_sizes(args: dict[str, Any]) -> None:
    if len(args) > _MAX_KEYS:
        refuse("vllm_xargs", f"vllm_xargs has {len(args)} entries; the limit is {_MAX_KEYS}")
    for key, value in args.items():
        if len(key) > _MAX_KEY_CHARS:
            refuse(
                "vllm_xargs",
                f"vllm_xargs has a name of {len(key)} characters, over {_MAX_KEY_CHARS}",
            )
        values = value if isinstance(value, list) else [value]
        if len(values) > _MAX_ITEMS:
            refuse(
                "vllm_xargs",
                f"vllm_xargs[{key!r}] has {len(values)} entries; the limit is {_MAX_ITEMS}",
            )
        for one in values:
            if not isinstance(one, (str, int, float)):
                refuse(
                    "vllm_xargs",
                    f"vllm_xargs[{key!r}] holds a value {shown(one)}; send texts, numbers and lists of them",
                )
            if isinstance(one, int) and one.bit_length() > 63:
                refuse(
                    "vllm_xargs",
                    f"vllm_xargs[{key!r}] holds a number of {one.bit_length()} bits; the limit is 63",
                )
            if isinstance(one, str) and len(one) > _MAX_CHARS:
                refuse(
                    "vllm_xargs",
                    f"vllm_xargs[{key!r}] has a text of {len(one)} characters; the limit is {_MAX_CHARS}",
                )
