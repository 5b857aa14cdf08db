"""Where each parameter's numbers stand in a checkpoint: rename, stack, split, transpose, fold,
ignore.

The rules are data; `models.loading` carries them out, and no file is read here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from quire.models.fold import SETS, shape_in_sets
from quire.models.fold import Fold as Fold
from quire.models.parameters import Parameter, parameters
from quire.models.recurrent import GatedDeltaNet, HeadMamba, LinearAttention
from quire.models.spec import Attention, DecoderSpec, LayerSpec, Mla, Moe, Placement
from quire.protocol.errors import ModelLoadError

_HALVES = ("first_halves", "second_halves")
_OF_HEADS = ("gather_heads", "paired_rows", "turn_back", *_HALVES, *SETS)
_ROWS = {**dict.fromkeys(_HALVES, 4), "paired_rows": 1}  # halves of what is wanted that a file has
_SHOWN = 3  # tensor names told in an error; the rest is counted


@dataclass(frozen=True)
class Rule:
    """One tensor of the checkpoint fills one or more neighbouring parts of one parameter.

    source, target  names; "{layer}" stands for the layer's number in both, "{expert}" for the expert's. A
                    source without the expert's number holds all experts along its first axis. In a source
                    "{home}" and "{use}" are those of the layer's `AfterBlock`, and "{half}" is half the layer's number.
    parts           which stacked parts it fills, in order; several parts split a fused tensor.
    transpose       the checkpoint holds [in, out].
    fold            "add_one": the layer computes with 1 + w, "add_fifth": with 1/5 + w, "add_eleventh": with
                    5^-1.5 + w; "exp": with e^w; "minus_exp": with -e^w; "minus": with -w;
                    "over_width", "over_root": with w divided by how many numbers it has, or by the root of that.
                    "gather_heads": the checkpoint holds the q heads that share the first k and v, that k and
                    that v, then those of the second, and so on; likewise other parts by heads of k.
                    "gather_quarters": a quarter of the heads of q, of v, of k, then the next quarter.
                    "split_turns": the rows of two parts take turns; "swap_halves": the second part comes first.
                    "turn_back": so does the second half of each head, whose positions turn it the other way.
                    "first_halves", "second_halves": of the rows of each head, twice as many as are wanted.
                    "paired_rows": behind the rows of each head of k in the first half come those of the other half's
                    head there; and all of it a second time.
                    "unit_rows": each row is divided by its length.
                    "set_rows", "set_columns": q heads stand in sets, one of each k, which are the first axis.
    skip            rows at the start of the checkpoint's tensor that are left out.
    squeeze         axes of one in the checkpoint's tensor do not count.
    flat            the rows of one expert follow those of another: the experts have no axis of their own.
    placement       of the layers that it is for; None: of all.
    A rule whose target the description does not have is not used, nor one for parts that the target lacks.
    """

    source: str
    target: str
    parts: tuple[int, ...] = (0,)
    transpose: bool = False
    fold: Fold = "none"
    skip: int = 0
    placement: Placement | None = None
    squeeze: bool = False
    flat: bool = False


@dataclass(frozen=True)
class WeightMap:
    """All rules of an architecture and the checkpoint tensors that may be left unread.

    ignored          patterns where "{layer}" and "{expert}" are any numbers.
    ignored_if_tied  further ones when the embedding is the head too.
    optional_prefix  the start of names that some checkpoints leave out of all of them.
    ones             parameters that checkpoints leave out, all ones, biases zeros; "{layer}" is any number.
    optional         tensors that some checkpoints leave out, of such parameters.
    older            how names of older files begin, each behind how these do; of no file with the first of these.
    drafts           starts of names of what drafts further tokens and is left unread; with "{layer}" of the
                     layers behind the last one.
    """

    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    ignored_if_tied: tuple[str, ...] = ()
    optional_prefix: str = ""
    ones: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()
    older: tuple[tuple[str, str], ...] = ()

    def with_rules(self, *rules: Rule) -> WeightMap:
        """This map with further rules; a rule for a source already named replaces the old one."""
        sources = {rule.source for rule in rules}
        kept = tuple(rule for rule in self.rules if rule.source not in sources)
        return replace(self, rules=kept + rules)

    def without(self, *targets: str) -> WeightMap:
        """This map without the rules for the weight and bias of `targets`."""
        gone = {f"{target}.{kind}" for target in targets for kind in ("weight", "bias")}
        return replace(self, rules=tuple(rule for rule in self.rules if rule.target not in gone))

    def without_source(self, *sources: str) -> WeightMap:
        """This map without the rules that read `sources`."""
        return replace(self, rules=tuple(rule for rule in self.rules if rule.source not in sources))

    def for_names(self, names: Iterable[str]) -> WeightMap:
        """This map for a checkpoint with these tensors: `optional_prefix` cut off if none has it; or `older`."""
        prefix = self.optional_prefix
        if absent := [name for name in self.optional if name not in names]:
            return self.without_source(*absent)
        if self.older and not any(name.startswith(self.older[0][0]) for name in names):
            rules = [replace(rule, source=self._older(rule.source)) for rule in self.rules]
            lists = (self.ignored, self.ignored_if_tied, self.drafts)
            ignored, if_tied, drafts = (tuple(map(self._older, names)) for names in lists)
            return WeightMap(tuple(rules), ignored, if_tied, ones=self.ones, drafts=drafts)
        if not prefix or any(name.startswith(prefix) for name in names):
            return self
        return replace(
            self,
            rules=tuple(
                replace(rule, source=rule.source.removeprefix(prefix)) for rule in self.rules
            ),
            ignored=tuple(name.removeprefix(prefix) for name in self.ignored),
            ignored_if_tied=tuple(name.removeprefix(prefix) for name in self.ignored_if_tied),
        )

    def _older(self, name: str) -> str:
        for new, old in self.older:
            if name.startswith(new):
                return old + name.removeprefix(new)
        return name

    def folded(self, fold: Fold, *sources: str) -> WeightMap:
        """This map with `fold` on the rules that read `sources`."""
        rules = tuple(
            replace(rule, fold=fold) if rule.source in sources else rule for rule in self.rules
        )
        return replace(self, rules=rules)


@dataclass(frozen=True)
class Piece:
    """A rule with its numbers filled in: `shape` is what the checkpoint must hold.

    shape without axes of one if `squeeze`.
    sizes, groups  rows of each part; heads of k, or of q, where the fold is about heads.
    expert  which slice along the first axis is read, or, if `flat` is not 0, which of so many rows; None is all.
    """

    source: str
    parts: tuple[int, ...]
    shape: tuple[int, ...]
    transpose: bool
    fold: Fold
    skip: int = 0
    squeeze: bool = False
    flat: int = 0
    sizes: tuple[int, ...] = ()
    groups: int = 1
    expert: int | None = None


def expand(weight_map: WeightMap, spec: DecoderSpec) -> dict[str, tuple[Piece, ...]]:
    """For every parameter the checkpoint tensors that fill it, each part exactly once.

    Raises ValueError if the map leaves a part unfilled or fills it twice: a mistake in the map.
    """
    table = parameters(spec)
    pieces: dict[str, list[Piece]] = {name: [] for name in table}
    for rule in weight_map.rules:
        layers = spec.layers
        if rule.target.startswith("encoder.") and spec.program is None:
            layers = () if spec.encoder is None else spec.encoder.layers
        for number, layer in enumerate(layers if "{layer}" in rule.target else layers[:1]):
            if rule.placement not in (None, layer.placement):
                continue
            for expert in range(_num_experts(layer) if "{expert}" in rule.target else 1):
                target = rule.target.format(layer=number, expert=expert)
                if target in table and min(rule.parts) < len(table[target].parts):
                    piece = _piece(rule, table[target], _groups(layer, rule.fold))
                    if rule.fold in SETS and isinstance(layer.mixer, Attention):
                        sets = layer.mixer.num_heads // layer.mixer.num_kv_heads
                        piece = replace(piece, shape=shape_in_sets(rule.fold, piece.shape, sets))
                    if "{expert}" in rule.target and "{expert}" not in rule.source:
                        piece = _slice(piece, expert, _num_experts(layer), flat=rule.flat)
                    at = {"half": number // 2} | getattr(layer.mixer, "places", {})
                    source = rule.source.format(layer=number, expert=expert, **at)
                    pieces[target].append(replace(piece, source=source))
    for name, parameter in table.items():
        if not pieces[name] and _matches(name, weight_map.ones):
            continue
        filled = sorted(part for piece in pieces[name] for part in piece.parts)
        if filled != list(range(len(parameter.parts))):
            raise ValueError(
                f"the weight map fills parts {filled} of {name}, which has {len(parameter.parts)}"
            )
    return {name: tuple(found) for name, found in pieces.items()}


def match(
    weight_map: WeightMap, spec: DecoderSpec, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[Piece, ...]]:
    """`expand`, checked against the tensors of a checkpoint.

    shapes  by tensor name.
    Raises ModelLoadError for a tensor that is missing, of another shape, or without use.
    """
    weight_map = weight_map.for_names(shapes)
    plan = expand(weight_map, spec)
    pieces = [piece for found in plan.values() for piece in found]
    missing = [piece.source for piece in pieces if piece.source not in shapes]
    if missing:
        raise ModelLoadError(
            f"the checkpoint lacks {_named(missing)}; "
            "the files are incomplete or belong to another model"
        )
    for piece in pieces:
        found = shapes[piece.source]
        if (tuple(n for n in found if n != 1) if piece.squeeze else found) != piece.shape:
            raise ModelLoadError(
                f"tensor {piece.source!r} has shape {list(found)}, "
                f"but config.json implies {list(piece.shape)}"
            )
    used = {piece.source for piece in pieces}
    ignored = weight_map.ignored + (weight_map.ignored_if_tied if spec.tie_head else ())
    used |= {name for name in shapes if _is_draft(name, weight_map.drafts, len(spec.layers))}
    left = [name for name in shapes if name not in used and not _matches(name, ignored)]
    if left:
        raise ModelLoadError(
            f"the checkpoint holds {_named(left)}, which this architecture does not use; "
            "config.json does not describe these weights"
        )
    return plan


def _num_experts(layer: LayerSpec) -> int:
    part = layer.feed_forward
    return part.num_experts if isinstance(part, Moe) else 0


def _groups(layer: LayerSpec, fold: Fold) -> int:
    """Heads of k in the mixer of a layer, or of q, or numbers of half a head, where the fold is about those."""
    for mixer in layer.mixers if fold in _OF_HEADS else ():
        if fold == "turn_back" and isinstance(mixer, Attention):
            return mixer.head_size // 2
        if isinstance(mixer, Attention | Mla):
            return mixer.num_heads if fold in _HALVES else mixer.num_kv_heads
        if isinstance(mixer, GatedDeltaNet):
            return mixer.key_heads
        if isinstance(mixer, LinearAttention | HeadMamba):
            return mixer.num_heads
    return 1


def _slice(piece: Piece, expert: int, num_experts: int, *, flat: bool) -> Piece:
    """One expert's piece of a tensor that holds all of them."""
    rows, *rest = piece.shape
    if flat:
        return replace(piece, shape=(num_experts * rows, *rest), expert=expert, flat=rows)
    return replace(piece, shape=(num_experts, *piece.shape), expert=expert)


def _piece(rule: Rule, parameter: Parameter, groups: int) -> Piece:
    chosen = [parameter.parts[part] for part in rule.parts if part < len(parameter.parts)]
    if len(chosen) != len(rule.parts):
        raise ValueError(
            f"the weight map names parts {rule.parts} of {rule.target}, which it does not have"
        )
    sizes = tuple(part[0] for part in chosen if part)
    rows = sum(sizes) * _ROWS.get(rule.fold, 2) // 2
    shape = (rule.skip + rows, *chosen[0][1:]) if chosen[0] else ()
    if rule.squeeze:
        shape = tuple(n for n in shape if n != 1)
    return Piece(
        source=rule.source,
        parts=rule.parts,
        shape=shape[::-1] if rule.transpose else shape,
        transpose=rule.transpose,
        fold=rule.fold,
        skip=rule.skip,
        squeeze=rule.squeeze,
        sizes=sizes,
        groups=groups,
    )


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        re.fullmatch(re.sub(r"\\{(layer|expert)\\}", r"\\d+", re.escape(pattern)), name)
        for pattern in patterns
    )


def _is_draft(name: str, starts: Iterable[str], num_layers: int) -> bool:
    for start in starts:
        found = re.match(re.escape(start).replace(r"\{layer\}", r"(\d+)"), name)
        if found and (not found.groups() or int(found[1]) >= num_layers):
            return True
    return False


def _named(names: list[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{'tensor' if len(names) == 1 else 'tensors'} {shown}{more}"


_LAYER = "model.layers.{layer}"
_OURS = "layers.{layer}"

LLAMA_NAMES = WeightMap(
    rules=(
        Rule("model.embed_tokens.weight", "embedding.weight"),
        Rule(f"{_LAYER}.input_layernorm.weight", f"{_OURS}.norm_before_mixer.weight"),
        *(
            Rule(
                f"{_LAYER}.self_attn.{name}_proj.{kind}", f"{_OURS}.mixer.qkv.{kind}", parts=(part,)
            )
            for part, name in enumerate("qkv")
            for kind in ("weight", "bias")
        ),
        *(
            Rule(f"{_LAYER}.self_attn.o_proj.{kind}", f"{_OURS}.mixer.out.{kind}")
            for kind in ("weight", "bias")
        ),
        Rule(
            f"{_LAYER}.post_attention_layernorm.weight", f"{_OURS}.norm_before_feed_forward.weight"
        ),
        *(
            Rule(
                f"{_LAYER}.mlp.{name}_proj.{kind}",
                f"{_OURS}.feed_forward.gate_up.{kind}",
                parts=(part,),
            )
            for part, name in enumerate(("gate", "up"))
            for kind in ("weight", "bias")
        ),
        *(
            Rule(f"{_LAYER}.mlp.down_proj.{kind}", f"{_OURS}.feed_forward.down.{kind}")
            for kind in ("weight", "bias")
        ),
        Rule("model.norm.weight", "final_norm.weight"),
        Rule("lm_head.weight", "head.weight"),
    ),
    ignored=(f"{_LAYER}.self_attn.rotary_emb.inv_freq",),
    ignored_if_tied=("lm_head.weight",),
)
"""The names of Llama checkpoints, which most architectures share."""

QK_NORM_RULES = tuple(
    Rule(f"{_LAYER}.self_attn.{name}_norm.weight", f"{_OURS}.mixer.{name}_norm.weight")
    for name in "qk"
)
"""A norm over each head of q and k."""

SANDWICH_RULES = (
    Rule(f"{_LAYER}.post_attention_layernorm.weight", f"{_OURS}.norm_after_mixer.weight"),
    Rule(f"{_LAYER}.pre_feedforward_layernorm.weight", f"{_OURS}.norm_before_feed_forward.weight"),
    Rule(f"{_LAYER}.post_feedforward_layernorm.weight", f"{_OURS}.norm_after_feed_forward.weight"),
)
"""Norms on both sides of each part."""

POST_NORM_RULES = (
    Rule(f"{_LAYER}.post_attention_layernorm.weight", f"{_OURS}.norm_after_mixer.weight"),
    Rule(f"{_LAYER}.post_feedforward_layernorm.weight", f"{_OURS}.norm_after_feed_forward.weight"),
)
"""Norms after each part; a rule for `input_layernorm` finds no target then."""


def expert_rules(
    block: str, names: tuple[str, str, str] = ("gate_proj", "up_proj", "down_proj")
) -> tuple[Rule, ...]:
    """Rules for experts with three tensors each below `block`, which stands for `mlp`."""
    source, target = (
        f"{_LAYER}.{block}.experts.{{expert}}",
        f"{_OURS}.feed_forward.experts.{{expert}}",
    )
    gate, up, down = names
    return (
        Rule(f"{source}.{gate}.weight", f"{target}.gate_up.weight", parts=(0,)),
        Rule(f"{source}.{up}.weight", f"{target}.gate_up.weight", parts=(1,)),
        Rule(f"{source}.{down}.weight", f"{target}.down.weight"),
    )


def router_rules(name: str) -> tuple[Rule, ...]:
    """Rules for a router's weight and bias."""
    return tuple(
        Rule(f"{_LAYER}.{name}.{kind}", f"{_OURS}.feed_forward.router.{kind}")
        for kind in ("weight", "bias")
    )


def shared_rules(block: str) -> tuple[Rule, ...]:
    """Rules for the experts that all tokens pass, below `block`."""
    source, target = f"{_LAYER}.{block}", f"{_OURS}.feed_forward.shared"
    return (
        Rule(f"{source}.gate_proj.weight", f"{target}.gate_up.weight", parts=(0,)),
        Rule(f"{source}.up_proj.weight", f"{target}.gate_up.weight", parts=(1,)),
        Rule(f"{source}.down_proj.weight", f"{target}.down.weight"),
    )
