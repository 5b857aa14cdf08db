"""What a model is, as frozen data: one decoder description with one entry for each layer.

Leaves checkpoints to `models.hf_config` and `models.names`, and building to `models.build`.
A field's default is the plain layer: RMS norm before each part, grouped-query attention with RoPE,
SwiGLU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from quire.models.block_picks import BlockPicks as BlockPicks
from quire.models.compressed import Compressed as Compressed
from quire.models.compressed import Kept
from quire.models.feed_forward import Activation as Activation
from quire.models.feed_forward import Dense as Dense
from quire.models.feed_forward import FeedForward as FeedForward
from quire.models.feed_forward import Moe as Moe
from quire.models.foreign.program import Program
from quire.models.latent import Indexer as Indexer
from quire.models.latent import Mla as Mla
from quire.models.latent import Picks as Picks
from quire.models.placements import Placement as Placement
from quire.models.positions import Distances as Distances
from quire.models.positions import DynamicScaling as DynamicScaling
from quire.models.positions import LinearScaling as LinearScaling
from quire.models.positions import Llama3Scaling as Llama3Scaling
from quire.models.positions import LongRopeScaling as LongRopeScaling
from quire.models.positions import ProportionalScaling as ProportionalScaling
from quire.models.positions import Rope as Rope
from quire.models.positions import RopeScaling as RopeScaling
from quire.models.positions import Temperature as Temperature
from quire.models.positions import YarnScaling as YarnScaling
from quire.models.recurrent import Recurrent
from quire.models.shared_block import AfterBlock as AfterBlock
from quire.models.streams import HyperStreams as HyperStreams
from quire.models.streams import LayerInputs as LayerInputs
from quire.models.streams import Streams as Streams
from quire.protocol.cache import CacheKind

NormKind = Literal["rms", "layer", "layer_unbiased", "none"]
"""Root mean square; or mean and variance, with or without a bias beside the weight; or no norm."""
QkNorm = Literal[
    "none", "per_head", "full", "layer", "layer_full", "layer_per_head", "own_per_head"
]


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Grouped-query attention, causal unless said.

    bidirectional  a token sees those behind it too; a window counts both ways then.
    scale    factor of the scores; None is head_size ** -0.5.
    qk_norm  of q and k before RoPE, with eps `norm_eps`. "per_head": an RMS norm over each head;
             "full": one over all heads together; "layer": a LayerNorm with bias over each head,
             "layer_full": over all together;
             "layer_per_head", "own_per_head": one without bias, or an RMS norm, each head with weights of its own.
    norm_after_rope  that norm comes after RoPE instead.
    values   "normed": RMS normed over each head without weights; "normed_keys": and made of what keys are made
             of, before their norm and RoPE, so that there is no product for them.
    shares   the mixer whose cached keys and values are looked at, as there are none of its own; "per_head" is then
             the only norm of queries.
    sinks    a learned score of each head takes weight and gives nothing.
    alibi    factor of the heads' slopes, by which scores fall with the distance; 0 is none.
    root_alibi  the longest distance whose root, times a slope, is taken off scores; 0 is none.
    rank     numbers of which queries are made, after an RMS norm of them with eps `norm_eps`; 0 is none.
    window   tokens looked back, counting the query itself; None is unlimited.
    value_head   numbers of a head's value; 0 is as many as of a key.
    value_scale  factor of values.
    chunked  that window does not move: a token sees those of its own stretch of `window` tokens.
    distances  what distances add to the scores; None is nothing.
    cross    keys and values are made of what the encoder gave, all of which every token sees.
    temperature  what queries are multiplied by, after norm and RoPE; None is nothing.
    softcap  scores become softcap * tanh(score / softcap); 0 is off.
    clip     what is beyond it of q, k and v becomes clip or -clip; 0 is off.
    gate     what a head mixed is multiplied with the sigmoid of a product of the layer's input; `gate_heads`: of
             one number for each head; `gate_curve`: of those, what they go through; `gate_bias`: to the others one
             number of each head is added.
    pairs    what a head mixed has a share of what another one mixed taken off, and is RMS normed: at first that
             share, 0 is none. Values then have twice the numbers of keys: those of two heads of k.
    told     numbers of a head that no product makes, of `head_size`: the first of a key is what it adds to all its
             scores, e to a rate of its head times the softplus of a product of the token's values; 0: none are.
    chosen   of the heads that share one of k so many count, weighed by a router's softmax; 0: all, as they are.
    indexer  what picks the blocks of tokens that a query sees, for each head of k; None: it sees all.
    mixed_norm  what all heads mixed together is RMS normed, with eps `norm_eps`, before the product back.
    """

    num_heads: int
    num_kv_heads: int
    head_size: int
    rope: Rope | None
    scale: float | None = None
    qkv_bias: bool = False
    out_bias: bool = False
    qk_norm: QkNorm = "none"
    norm_eps: float = 1e-6
    norm_after_rope: bool = False
    values: Literal["own", "normed", "normed_keys"] = "own"
    shares: int | None = None
    sinks: bool = False
    alibi: float = 0.0
    root_alibi: int = 0
    rank: int = 0
    distances: Distances | None = None
    cross: bool = False
    window: int | None = None
    chunked: bool = False
    temperature: Temperature | None = None
    softcap: float = 0.0
    clip: float = 0.0
    gate: bool = False
    gate_heads: bool = False
    gate_curve: Literal["sigmoid", "softplus"] = "sigmoid"
    gate_bias: bool = False
    told: int = 0
    chosen: int = 0
    mixed_norm: bool = False
    pairs: float = 0.0
    bidirectional: bool = False
    value_head: int = 0
    value_scale: float = 1.0
    indexer: BlockPicks | None = None

    @property
    def query_scale(self) -> float:
        return self.head_size**-0.5 if self.scale is None else self.scale

    @property
    def positions(self) -> Rope | None:
        """What turns queries and keys."""
        return self.rope

    @property
    def made_size(self) -> int:
        """Numbers of a head's query and key that products make."""
        return self.head_size - self.told

    @property
    def value_size(self) -> int:
        """Numbers of a cached value of one head."""
        return self.value_head or self.head_size

    def cache_kind(self) -> CacheKind:
        if self.window is None:
            of_all: CacheKind = "full" if self.indexer is None else "blocks"
            return "cross" if self.cross else of_all
        return "chunked" if self.chunked else "sliding_window"

    def cache_bytes_per_token(self, dtype_bytes: int, scale_bytes: int = 0) -> int:
        """Bytes of one token's keys and values in one layer, packed without padding; scales a head."""
        numbers = self.head_size + self.value_size
        return self.num_kv_heads * (numbers * dtype_bytes + scale_bytes)


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """Several mixers that read the same numbers, and whose results are added.

    scales  for each mixer the factor of its result.
    """

    parts: tuple[Mixer, ...]
    scales: tuple[float, ...]

    def with_parts(self, parts: tuple[Mixer, ...]) -> SideBySide:
        """The same with these mixers."""
        return replace(self, parts=parts)


Attending = Attention | Mla | Compressed
"""What looks at cached tokens."""
Mixer = Attending | Indexer | BlockPicks | Recurrent
"""What keeps something of a token for later ones."""


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """One layer: a mixer, a feed-forward part, and where the norms stand.

    placement       "pre": a norm before each part; "post": after each part, before it is added;
                    "sandwich": both; "parallel": both parts read the layer's input, each through
                    its own norm; "parallel_shared": through one norm; "after_sums": a norm of the
                    residual stream after each part was added; "pre_feed_forward": only that one;
                    "mixer_only", "feed_forward_only": a norm before the one part that there is;
                    "sandwich_blended": as "sandwich", with factors of the stream and of what is added;
                    "sandwich_open": as "sandwich" without the norm before the feed-forward part;
                    "pre_closed": as "pre", with a norm after the feed-forward part;
                    "pre_weighed": as "pre", and each number of the stream has a factor before a part is added;
                    "altup": as "sandwich", on one of the decoder's `streams`; "normed_stream": before each
                    part the stream itself is normed; "hyper": as "pre", each part between the decoder's
                    `streams`.
                    "shortcut_open": as "pre", but what the routed experts make is added at the end of the next
                    layer, which is "shortcut_close" and else as "pre". "shortcut_apart": a norm and a feed-forward
                    part alone, all of which is added so.
                    "after_sums_twice": as "after_sums", and between the parts what came in is added and normed again.
                    "pre_cross", "after_sums_cross": with `cross` between the two parts, and norms of its own.
    cross           attention to what the encoder gave.
    norm            kind of the norms around the parts.
    residual_scale  factor of what each part adds to the residual stream.
    stream_scales   of "normed_stream" and "sandwich_blended": factors of the stream and of what the mixer adds to
                    it, and the same of the feed-forward part.
    blends          (number of an earlier layer, share) for each stream that is blended in: before the norms the
                    stream becomes share * what came into that layer + (1 - share) * itself.
    input_act       of the part that adds the layer's own input, in decoders with `layer_inputs`.
    scaled          what leaves the layer is multiplied by a learned number.
    """

    mixer: Mixer | SideBySide | AfterBlock | None
    feed_forward: FeedForward | None
    placement: Placement = "pre"
    cross: Attention | None = None
    norm: NormKind = "rms"
    norm_eps: float = 1e-6
    residual_scale: float = 1.0
    stream_scales: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    blends: tuple[tuple[int, float], ...] = ()
    input_act: Activation | None = None
    scaled: bool = False

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """Its mixers: one as a rule; what picks tokens for one stands behind it."""
        if isinstance(self.mixer, SideBySide | AfterBlock):
            return self.mixer.parts
        if isinstance(self.mixer, Attention | Mla) and self.mixer.indexer is not None:
            return (self.mixer, self.mixer.indexer)
        own = () if self.mixer is None else (self.mixer,)
        return own if self.cross is None else (*own, self.cross)

    @property
    def cached(self) -> tuple[Mixer | Kept, ...]:
        """What is cached for its mixers: one thing each as a rule, which the mixer itself describes."""
        found: list[Mixer | Kept] = []
        for mixer in self.mixers:
            found += mixer.kept if isinstance(mixer, Compressed) else (mixer,)
        return tuple(found)

    def with_mixers(self, change: Callable[[Mixer], Mixer]) -> LayerSpec:
        """The same layer with `change(mixer)` for each mixer, which has what picks tokens for it."""
        if isinstance(self.mixer, SideBySide | AfterBlock):
            parts = tuple(change(part) for part in self.mixer.parts)
            return replace(self, mixer=self.mixer.with_parts(parts))
        return self if self.mixer is None else replace(self, mixer=change(self.mixer))

    @property
    def attentions(self) -> tuple[Attending, ...]:
        """Those of its mixers that look at cached tokens."""
        return tuple(one for one in self.mixers if isinstance(one, Attending))


@dataclass(frozen=True, kw_only=True)
class EncoderSpec:
    """What reads a text whole for a decoder to look at; it shares the decoder's embedding and its width.

    max_len  tokens that it was made for. Other fields are as in DecoderSpec.
    """

    max_len: int
    layers: tuple[LayerSpec, ...]
    norm: NormKind = "rms"
    norm_eps: float = 1e-6
    embedding_norm: NormKind | None = None
    learned_positions: int = 0

    def limit(self, max_model_len: int) -> int:
        """Most tokens that a request's text may have."""
        return min(self.max_len, max_model_len)


@dataclass(frozen=True, kw_only=True)
class DecoderSpec:
    """A whole decoder; `layers` has one entry for each layer, in order.

    max_position_embeddings  tokens it was trained for, as the checkpoint says; see
                             `derived_max_len`.
    max_len                  longest sequence in tokens where the checkpoint states it in full,
                             position scaling included; None derives it.
    norm                     kind of the final norm.
    embedding_norm           kind of a norm of the embedding; None is none.
    embedding_eps            of that norm; None is `norm_eps`.
    embedding_scale          factor of embedding rows, rounded to the model's dtype.
    learned_positions        rows of a table of learned positions, added to the embedding; 0 is
                             none.
    wave_positions           rows of a table of sines and cosines, added to the embedding; 0 is none.
    token_types              rows of a table of token types, added to the embedding; 0 is none.
    head_act                 before the output matrix come a product, this activation and a norm as the final one is;
                             None: nothing does. head_act_bias: of that product.
    head_bias                the output matrix has a bias, one of its own or not.
    logit_scale              factor of the logits, before the soft cap.
    logit_softcap            logits become cap * tanh(logits / cap); 0 is off.
    tie_head                 the embedding is the output matrix too.
    layer_inputs             numbers of its own that each layer gets of a token; None for none.
    streams                  residual streams beside the one; None for none.
    loops                    times that all layers run, one after the other and with the final norm in between; each
                             time they cache for themselves.
    encoder                  what the layers' `cross` looks at; None for none.
    program                  of a model that is run from Transformers' code: its steps, of which `layers`
                             are the attentions; None for all others.
    """

    vocab_size: int
    hidden_size: int
    max_position_embeddings: int
    layers: tuple[LayerSpec, ...]
    max_len: int | None = None
    norm: NormKind = "rms"
    norm_eps: float = 1e-6
    embedding_norm: NormKind | None = None
    embedding_eps: float | None = None
    embedding_scale: float = 1.0
    learned_positions: int = 0
    wave_positions: int = 0
    token_types: int = 0
    head_act: Activation | None = None
    head_act_bias: bool = False
    head_bias: bool = False
    logit_scale: float = 1.0
    logit_softcap: float = 0.0
    tie_head: bool = False
    layer_inputs: LayerInputs | None = None
    streams: Streams | HyperStreams | None = None
    loops: int = 1
    encoder: EncoderSpec | None = None
    program: Program | None = None

    @property
    def all_layers(self) -> tuple[LayerSpec, ...]:
        """Its layers, and those of its encoder."""
        return self.layers if self.encoder is None else (*self.layers, *self.encoder.layers)

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The mixers of all layers, anew for each loop."""
        return tuple(mixer for layer in self.layers for mixer in layer.mixers) * self.loops

    @property
    def cached(self) -> tuple[Mixer | Kept, ...]:
        """What is cached for the mixers, in the order in which the cache numbers it."""
        return tuple(one for layer in self.layers for one in layer.cached) * self.loops

    @property
    def attentions(self) -> tuple[Attending, ...]:
        """Those that look at cached tokens."""
        return tuple(mixer for layer in self.layers for mixer in layer.attentions)

    @property
    def kept(self) -> frozenset[int]:
        """The layers whose input a later one blends in."""
        return frozenset(number for layer in self.layers for number, _ in layer.blends)

    @property
    def has_shortcuts(self) -> bool:
        """Whether a layer adds what experts of the one before made."""
        return any(layer.placement == "shortcut_close" for layer in self.layers)

    @property
    def num_picks(self) -> int:
        """Most tokens that are picked for a query in any layer; 0 where all are seen."""
        return max((one.num_picks for one in self.attentions if isinstance(one, Mla)), default=0)

    @property
    def keeps_embedding(self) -> bool:
        """Whether some layers read the embedding beside the residual stream."""
        return any(isinstance(layer.mixer, AfterBlock) for layer in self.layers)

    @property
    def sees_both_ways(self) -> bool:
        """Whether its own tokens see those behind them: nothing can be generated, and a prompt runs whole."""
        return any(isinstance(one, Attention) and one.bidirectional for one in self.attentions)

    def for_length(self, max_model_len: int) -> DecoderSpec:
        """The same decoder for sequences up to `max_model_len`: wider windows are dropped, and picks of so many."""

        def shortened(mixer: Mixer) -> Mixer:
            if isinstance(mixer, Attention) and mixer.window is not None:
                whole = replace(mixer, window=None, chunked=False)
                return whole if mixer.window >= max_model_len else mixer
            if isinstance(mixer, Attention) and mixer.indexer is not None:
                seen = mixer.indexer.num_tokens
                return replace(mixer, indexer=None) if seen >= max_model_len else mixer
            if isinstance(mixer, Mla) and 0 < mixer.num_picks < max_model_len:
                return mixer
            return replace(mixer, picks=None) if isinstance(mixer, Mla) else mixer

        return replace(self, layers=tuple(layer.with_mixers(shortened) for layer in self.layers))
