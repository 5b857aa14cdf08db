"""Typed reads from a checkpoint's config.json that remember which keys were used.

What the keys mean for an architecture is told in `models.architectures`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from quire.protocol.errors import ModelLoadError

HARMLESS_KEYS = frozenset(
    (
        "_name_or_path",
        "_attn_implementation_autoset",
        "architectures",
        "auto_map",
        "model_type",
        "torch_dtype",
        "dtype",
        "transformers_version",
        "tokenizer_class",
        "max_tokenizer_truncation",
        "initializer_range",
        "attention_dropout",
        "hidden_dropout",
        "attn_pdrop",
        "embd_pdrop",
        "resid_pdrop",
        "use_cache",
        "cache_implementation",
        "return_dict",
        "output_attentions",
        "output_router_logits",
        "router_aux_loss_coef",
        "router_jitter_noise",
        "output_hidden_states",
        "is_decoder",
        "pad_token_id",
        "bos_token_id",
        "eos_token_id",
        "pretraining_tp",
        "max_model_len",
        "unsloth_version",
        "unsloth_fixed",
        "id2label",
        "label2id",
        "problem_type",
        "torchscript",
        "chunk_size_feed_forward",
        "gradient_checkpointing",
    )
)
"""Keys that say nothing about inference of a decoder: training, bookkeeping, or read elsewhere."""

HARMLESS_VALUES: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "finetuned": (True, False),
    "is_encoder_decoder": (False,),
    "rope_interleaved": (False,),
    "tie_encoder_decoder": (False,),
    "use_bidirectional_attention": (False,),
    "use_mrope": (False,),
}
"""Keys that may stay unread with these values; null and empty are harmless for every key."""

_MISSING: Any = object()
_MAX_INT = 2**31 - 1
_MAX_LAYERS = 10_000
"""Of layers, and of experts in one of them: each is described by itself."""
_LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")


class HfConfig:
    """One JSON object of a checkpoint, read key by key.

    A read without `default` raises ModelLoadError when the key is absent; so does every read of a
    value of another type. Optional reads answer None for null, whatever the default.
    """

    def __init__(
        self, values: Mapping[str, Any], *, where: str = "config.json", prefix: str = ""
    ) -> None:
        self._values = values
        self._where = where
        self._prefix = prefix
        self._used: set[str] = set()
        self._children: dict[str, HfConfig] = {}

    def int_(self, key: str, default: int = _MISSING, *, minimum: int = 1) -> int:
        """A whole number from `minimum` to 2^31 - 1, or to 10,000 for layers and experts."""
        value = self._read(key, default)
        counts = key in _LAYER_COUNTS or ("expert" in key and "size" not in key)
        maximum = _MAX_LAYERS if counts else _MAX_INT
        if isinstance(value, bool) or not isinstance(value, int):
            raise self._wrong(key, value, "a whole number")
        if not minimum <= value <= maximum:
            raise self._wrong(key, value, f"a whole number from {minimum} to {maximum}")
        return value

    def float_(self, key: str, default: float = _MISSING) -> float:
        """A finite number."""
        value = self._read(key, default)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not abs(value) < float("inf")
        ):
            raise self._wrong(key, value, "a finite number")
        return float(value)

    def positive(self, key: str, default: float = _MISSING) -> float:
        """A finite number above zero."""
        value = self.float_(key, default)
        if value <= 0:
            raise self._wrong(key, value, "a number above zero")
        return value

    def bool_(self, key: str, default: bool = _MISSING) -> bool:
        """True or false."""
        value = self._read(key, default)
        if not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def choice(self, key: str, table: Mapping[str, Any], default: str = _MISSING) -> Any:
        """The table's entry for a name."""
        value = self._read(key, default)
        if not isinstance(value, str) or value not in table:
            raise self._wrong(key, value, f"one of {', '.join(sorted(table))}")
        return table[value]

    def optional_int(self, key: str, default: int | None = None, *, minimum: int = 1) -> int | None:
        """A whole number, or None when the key is null; `default` when it is absent."""
        return (
            None
            if self._none(key, default)
            else self.int_(key, default or _MISSING, minimum=minimum)
        )

    def optional_positive(self, key: str, default: float | None = None) -> float | None:
        """A number above zero, or None when the key is null; `default` when it is absent."""
        return None if self._none(key, default) else self.positive(key, default or _MISSING)

    def text(self, key: str, default: str) -> str:
        """A string."""
        value = self._read(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def strings(self, key: str) -> list[str] | None:
        """A list of strings; None when absent or null."""
        value = self._read(key, None)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(key, value, "a list of strings")
        return value

    def integers(self, key: str) -> list[int]:
        """A list of whole numbers from 0 up; empty when absent or null."""
        value = self._read(key, None) or []
        if not isinstance(value, list) or not all(
            isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in value
        ):
            raise self._wrong(key, value, "a list of whole numbers from 0 up")
        return value

    def pairs(self, key: str, default: list[Any]) -> list[tuple[Any, Any]]:
        """A list of lists of two, as in JSON."""
        value = self._read(key, default)
        if not isinstance(value, list) or not all(
            isinstance(item, list) and len(item) == 2 for item in value
        ):
            raise self._wrong(key, value, "a list of pairs")
        return [(first, second) for first, second in value]

    def each_layer(self, key: str, default: int) -> int:
        """A whole number from 0 up that every layer has: itself, or a list of it."""
        value = self._read(key, default)
        found = value if isinstance(value, list) and value else [value]
        if any(isinstance(item, list | dict | str) or item != found[0] for item in found):
            raise self._wrong(key, value, "one number, or a list of one number for all layers")
        if found[0] is None or int(found[0]) != found[0] or found[0] < 0:
            raise self._wrong(key, value, "a whole number from 0 up")
        return int(found[0])

    def for_layers(
        self, key: str, count: int, default: float | None, *, drafts: int = 0
    ) -> list[float] | None:
        """A number from 0 up for each of `count` layers: a list of them, or one for all; None when null.

        drafts  how many layers that draft the list may go on for.
        """
        value = self._read(key, default)
        found = value if isinstance(value, list) else [value] * count
        found = found[:count] if len(found) == count + drafts else found
        if value is None:
            return None
        if len(found) != count or not all(
            isinstance(item, int | float) and not isinstance(item, bool) and 0 <= item < math.inf
            for item in found
        ):
            raise self._wrong(key, value, f"a number from 0 up, or a list of {count}")
        return found

    def factors(self, key: str, count: int) -> tuple[float, ...]:
        """So many finite numbers above zero; ones when absent or null."""
        found = self.numbers(key) if self._read(key, None) is not None else (1.0,) * count
        if len(found) != count:
            raise self._wrong(key, list(found), f"a list of {count} numbers above zero")
        return found

    def numbers(self, key: str) -> tuple[float, ...]:
        """A list of finite numbers above zero."""
        value = self._read(key, _MISSING)
        if not isinstance(value, list) or not all(
            isinstance(item, int | float) and not isinstance(item, bool) and 0 < item < math.inf
            for item in value
        ):
            raise self._wrong(key, value, "a list of numbers above zero")
        return tuple(float(item) for item in value)

    def int_or(self, key: str, word: str, default: int) -> int:
        """A whole number; `default` if the value is `word` or the key is absent."""
        value = self._read(key, word)
        return default if value == word else self.int_(key)

    def span(self, key: str) -> tuple[float, float]:
        """Two numbers from 0 up, the second not below the first and maybe infinite: 0 and infinity when
        absent or null. Infinity may be written as Transformers writes it, {"__float__": "Infinity"}."""
        value = self._read(key, None) or [0.0, math.inf]
        if not isinstance(value, list) or len(value) != 2:
            raise self._wrong(key, value, "a list of two numbers")
        low, high = (math.inf if one == {"__float__": "Infinity"} else one for one in value)
        for one in (low, high):
            if isinstance(one, bool) or not isinstance(one, int | float) or not one >= 0:
                raise self._wrong(key, value, "a list of two numbers from 0 up")
        if high < low:
            raise self._wrong(key, value, "a list of two numbers, the least first")
        return float(low), float(high)

    def section(self, key: str) -> HfConfig | None:
        """A nested object as a reader of its own; None when absent. Its unread keys count too."""
        value = self._read(key, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._wrong(key, value, "a JSON object")
        if key not in self._children:
            self._children[key] = HfConfig(value, where=self._where, prefix=f"{self._prefix}{key}.")
        return self._children[key]

    def sections(self, key: str) -> list[HfConfig]:
        """A list of nested objects, each as a reader of its own; empty when absent or null."""
        value = self._read(key, None) or []
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self._wrong(key, value, "a list of JSON objects")
        for index, item in enumerate(value):
            name = f"{key}[{index}]"
            if name not in self._children:
                prefix = f"{self._prefix}{name}."
                self._children[name] = HfConfig(item, where=self._where, prefix=prefix)
        return [self._children[f"{key}[{index}]"] for index in range(len(value))]

    def has(self, key: str) -> bool:
        """Whether the key is there and neither null nor empty; does not count as a read."""
        return self._values.get(key) not in (None, {}, [], "")

    def add_defaults(self, values: Mapping[str, Any]) -> None:
        """Gives keys that are not there a value; they do not count as unread."""
        self._used.update(key for key in values if key not in self._values)
        self._values = {**values, **self._values}

    def names(self) -> list[str]:
        """The keys of this object; does not count as a read."""
        return list(self._values)

    def skip(self, *keys: str) -> None:
        """Counts keys as read whose value cannot matter here."""
        self._used.update(keys)

    def is_empty(self) -> bool:
        """Whether the object holds nothing."""
        return not self._values

    def refuse(self, key: str, reason: str) -> ModelLoadError:
        """The error for a value that is well formed but not served."""
        return ModelLoadError(
            f"{self._where}: {self._prefix}{key} is {self._values.get(key)!r}: {reason}"
        )

    def unread(self) -> list[str]:
        """Keys that no read has touched and no harmless list names, those of sections included."""
        names = []
        for key, value in self._values.items():
            if key in self._used or key in HARMLESS_KEYS or value in (None, {}, []):
                continue
            if value not in HARMLESS_VALUES.get(key, ()):
                names.append(f"{self._prefix}{key}")
        for child in self._children.values():
            names.extend(child.unread())
        return names

    def _read(self, key: str, default: Any) -> Any:
        self._used.add(key)
        value = self._values.get(key, default)
        if value is _MISSING:
            raise ModelLoadError(f"{self._where}: {self._prefix}{key} is missing")
        return value

    def _none(self, key: str, default: Any) -> bool:
        return self._read(key, default) is None

    def _wrong(self, key: str, value: Any, wanted: str) -> ModelLoadError:
        return ModelLoadError(
            f"{self._where}: {self._prefix}{key} is {value!r}; it must be {wanted}"
        )


def merge_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`values` with `overrides` over them; objects merge key by key, null takes a key out."""
    merged = dict(values)
    for key, value in overrides.items():
        old = merged.get(key)
        if isinstance(value, Mapping) and isinstance(old, Mapping):
            value = merge_overrides(old, value)
        merged[key] = value
    return merged
