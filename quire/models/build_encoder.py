"""Makes an encoder of its layers, and what stands at the ends of a stack: before its layers, and before its head.

The layers themselves are made in `models.build`.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.layers.before_head import BeforeHead
from quire.layers.embedding import AddedRows, Embedding, WaveRows
from quire.layers.norm import NORMS, Norm
from quire.models.build_mixers import MixerParts
from quire.models.decoder_layers import DecoderLayer
from quire.models.encoder import EncoderStack
from quire.models.spec import DecoderSpec, EncoderSpec

WAVES_BEGIN = 2
"""The row of the first position in tables of sines and cosines, as fairseq counts them."""


def make_encoder(
    parts: MixerParts, spec: EncoderSpec, embedding: Embedding, layers: Sequence[DecoderLayer]
) -> EncoderStack:
    """The encoder with these layers; `embedding` is the decoder's."""
    norms, added = beginning(parts, "encoder.", spec)
    return EncoderStack(
        embedding=embedding,
        added=added,
        embedding_norm=norms,
        layers=layers,
        final_norm=NORMS[spec.norm](
            parts.table,
            "encoder.final_norm",
            size=parts.size,
            eps=spec.norm_eps,
            dtype=parts.dtype,
        ),
    )


def beginning(
    parts: MixerParts, prefix: str, spec: DecoderSpec | EncoderSpec, token_types: int = 0
) -> tuple[list[Norm], list[AddedRows]]:
    """The norm of an embedding, and what is added to it before."""
    table, size, dtype = parts.table, parts.size, parts.dtype
    norms: list[Norm] = []
    if spec.embedding_norm is not None:
        make, name = NORMS[spec.embedding_norm], f"{prefix}embedding_norm"
        own = spec.embedding_eps if isinstance(spec, DecoderSpec) else None
        eps = spec.norm_eps if own is None else own
        norms.append(make(table, name, size=size, eps=eps, dtype=dtype))
    counts = {"token_types": token_types, "positions": spec.learned_positions}
    added = [
        AddedRows(
            table,
            f"{prefix}{name}",
            rows=rows,
            size=size,
            dtype=dtype,
            by_type=name == "token_types",
        )
        for name, rows in counts.items()
        if rows
    ]
    if isinstance(spec, DecoderSpec) and spec.wave_positions:
        rows, first = spec.wave_positions, WAVES_BEGIN
        added.append(WaveRows(table, "waves", rows=rows, first=first, size=size, dtype=dtype))
    return norms, added


def before_head(parts: MixerParts, spec: DecoderSpec) -> BeforeHead | None:
    """What stands between the final norm and the output matrix, if anything does."""
    if spec.head_act is None:
        return None
    size, dtype = parts.size, parts.dtype
    norm = NORMS[spec.norm](
        parts.table, "before_head.norm", size=size, eps=spec.norm_eps, dtype=dtype
    )
    return BeforeHead(
        parts.table,
        "before_head",
        size=size,
        act=spec.head_act,
        bias=spec.head_act_bias,
        norm=norm,
        dtype=dtype,
    )
