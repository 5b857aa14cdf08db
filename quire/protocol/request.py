"""What the front hands to the engine: one request whole, checked and tokenised.

Everything a later feature needs is declared and round-trips; the front refuses what is not served yet.
"""

from __future__ import annotations

import msgspec

from quire.protocol.params import PoolingParams, SamplingParams


class TensorRef(msgspec.Struct, frozen=True, kw_only=True):
    """A tensor sent out of band: raw little-endian bytes, row-major."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


class MediaItem(msgspec.Struct, frozen=True, kw_only=True):
    """One image, clip or video: where its placeholder tokens stand and what the encoder gets."""

    modality: str
    offset: int
    length: int
    digest: bytes
    tensors: dict[str, TensorRef] = {}


class AdapterRef(msgspec.Struct, frozen=True, kw_only=True):
    """A LoRA adapter; `generation` grows when its weights are replaced, and is part of block keys."""

    id: int
    generation: int = 0


class GrammarSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An output constraint.

    kind              json, json_object, regex, choice, grammar or structural_tag.
    text              the schema, regex, grammar or tag; for choice a JSON list of strings.
    options           whitespace: True, False or a regex; additional_properties: False closes objects.
    starts_after_ids  the constraint holds behind these ids of the output, which end the thinking; empty:
                      from the first token on.
    """

    kind: str
    text: str
    options: dict[str, bool | str] = {}
    starts_after_ids: tuple[int, ...] = ()


class EncoderInput(msgspec.Struct, frozen=True, kw_only=True):
    """The encoder's part of an encoder-decoder request.

    text, decoder_text  what the user gave as text for each half, to be given back.
    """

    token_ids: list[int]
    text: str | None = None
    decoder_text: str | None = None
    tensors: dict[str, TensorRef] = {}


class EngineRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request as the engine sees it; its `params.n` sequences have indices 0 to n-1.

    seed           fixed in the front, so that any answer can be replayed.
    eos_token_ids  end a sequence unless `params.ignore_eos`; empty when there is none.
    end_of_thinking_ids, start_of_thinking_ids
                   the marks around the model's thinking, where it may think; without the latter the
                   prompt has begun it.
    resume_ids     output already sent, one list per sequence; it re-enters as output.
    positions      [3][prompt tokens] for M-RoPE, else None.
    embeds         [E, hidden] rows in the place of the embeddings of the prompt's tokens at `embed_rows`,
                   rising positions, whose ids are placeholders then.
    spans          (start, length) of prompt tokens that attend to each other both ways.
    type_from      position from which on token types are 1, the second text of a pair; None: all are 0.
    arrival_time   Unix seconds.
    """

    request_id: str
    prompt_token_ids: list[int]
    params: SamplingParams | PoolingParams
    seed: int = 0
    eos_token_ids: tuple[int, ...] = ()
    arrival_time: float = 0.0
    priority: int = 0
    client_index: int = 0
    cache_salt: str | None = None
    adapter: AdapterRef | None = None
    media: tuple[MediaItem, ...] = ()
    positions: list[list[int]] | None = None
    embeds: TensorRef | None = None
    embed_rows: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()
    type_from: int | None = None
    encoder: EncoderInput | None = None
    grammar: GrammarSpec | None = None
    end_of_thinking_ids: tuple[int, ...] = ()
    start_of_thinking_ids: tuple[int, ...] = ()
    resume_ids: list[list[int]] | None = None
    transfer: dict[str, str | int | float | bool | None] | None = None
    data_parallel_rank: int | None = None
    trace_headers: dict[str, str] | None = None
