"""What `--quantization` makes of a plain checkpoint while it is read: a format for each kind of weight.

Rounding is `quant.rounding`'s. Embeddings and norms keep their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from quire.quant.formats import PLAIN, Format

_INT8, _FP8 = Format("int8"), Format("fp8")


@dataclass(frozen=True)
class OnlineScheme:
    """The formats of a decoder's products.

    layers  of the products of mixers and feed-forward parts; head  of the product that makes logits.
    """

    layers: Format = PLAIN
    head: Format = PLAIN

    def format_of(self, group: str, name: str = "") -> Format:
        """The format of the matrices in a group of `models.parameters`, whatever their name."""
        if group in ("attention", "feed_forward", "recurrent"):
            return self.layers
        return self.head if group == "head" else PLAIN

    @property
    def has_few_bits(self) -> bool:
        """Whether layers have integers of at most six bits."""
        return self.layers.has_few_bits

    def with_short_rows(self) -> OnlineScheme:
        """The same with inputs of 8 bits for layers whose format takes them."""
        return OnlineScheme(self.layers.with_short_rows(), self.head)

    def __str__(self) -> str:
        return f"{self.layers.name} layers, {self.head.name} head"


UNQUANTIZED = OnlineScheme()

SCHEMES: dict[str, OnlineScheme] = {
    "int8": OnlineScheme(_INT8, _INT8),
    "int8_g128": OnlineScheme(Format("int8", 128), Format("int8", 128)),
    "int8_w8a8": OnlineScheme(Format("int8", inputs="row"), _INT8),
    "int4": OnlineScheme(Format("int4", 64), _INT8),
    "int4_g32": OnlineScheme(Format("int4", 32), _INT8),
    "int4_g64": OnlineScheme(Format("int4", 64), _INT8),
    "int4_g128": OnlineScheme(Format("int4", 128), _INT8),
    "int4_zp": OnlineScheme(Format("int4", 64, has_zeros=True), _INT8),
    "fp8": OnlineScheme(_FP8),
    "fp8_per_channel": OnlineScheme(_FP8),
    "fp8_per_tensor": OnlineScheme(Format("fp8", one_scale=True)),
    "fp8_per_block": OnlineScheme(Format("fp8", 128)),
}
"""By the name in the settings. The head keeps 8 bits where layers have 4: logits are read by their order,
and the vocabulary is a small part of what a large model reads. fp8 leaves it as it is, as elsewhere. Rows
are rounded to 8 bits by int8_w8a8 alone, and not before the head."""

_METHODS = """
aqlm bitblas deepspeedfp experts_int8 gptq_bitblas
ipex marlin moe_wna16 mxfp8 neuron_quant petit_nvfp4
qqq rtn squeezellm tpu_int8 int8_per_channel_weight_only
"""

CHECKPOINT_METHODS = frozenset(_METHODS.split())
"""Names that users know from elsewhere and that mean checkpoints or formats not served here."""


def online_scheme(name: str | None) -> OnlineScheme:
    """The scheme of a name; None keeps the checkpoint's numbers.

    Raises ValueError, with the names there are, for an unknown one.
    """
    if name is None:
        return UNQUANTIZED
    if name not in SCHEMES:
        why = "is not served by this version" if name in CHECKPOINT_METHODS else "is unknown"
        raise ValueError(
            f"quantization {name!r} {why}; to make fewer bits of a plain checkpoint at load use one of: "
            f"{', '.join(SCHEMES)}"
        )
    return SCHEMES[name]
