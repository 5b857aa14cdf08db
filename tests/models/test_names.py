"""The weight maps are total: every parameter filled once, every checkpoint tensor used or listed as ignored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from quire.models.fused_names import for_fused_names
from quire.models.hf_config import HfConfig
from quire.models.loading.headers import read_headers
from quire.models.loading.reader import checkpoint_source, folded
from quire.models.names import LLAMA_NAMES, Piece, Rule, WeightMap, expand, match
from quire.models.parameters import parameters
from quire.models.registry import ARCHITECTURES
from quire.models.spec import Attention, DecoderSpec, Dense, LayerSpec, Moe, Rope
from quire.protocol.errors import ModelLoadError
from tests.models.conftest import Built
from tests.models.families import CASES
from tests.models.harness import CPU

UNREAD = (
    ".self_attn.indexer.",
    "vision_tower.",
    "visual.",
    "vision_model.",
    "vit_large_projector.",
    "multi_modal_projector.",
    "image_newline",
    "mm_projector.",
    ".feed_forward_ve.",
    ".altup.correct_output_scale",
    "_decay",
    ".slope_rate",
    ".early_exit_gate.",
)
"""Parts of names of tensors that are left unread on purpose, by some models at least."""


def stored_shapes(it: Built) -> dict[str, tuple[int, ...]]:
    return {name: header.shape for name, header in read_headers(Path(it.description.path)).items()}


def names_of(it: Built) -> WeightMap:
    """The map as it is for the file: experts may be stacked there."""
    return for_fused_names(ARCHITECTURES[it.description.architecture].names, stored_shapes(it))


@pytest.mark.parametrize("name", CASES)
def test_every_part_is_filled_once_and_every_tensor_used(
    name: str, built: Callable[[str], Built]
) -> None:
    it = built(name)
    names, spec = names_of(it), it.description.spec
    plan = match(names, spec, stored_shapes(it))
    assert list(plan) == list(parameters(spec))
    sources = [piece.source for found in plan.values() for piece in found]
    slices = [
        (it.source, it.expert, it.fold) for found in plan.values() for it in found
    ]  # or halves
    assert len(slices) == len(set(slices))
    allowed = (*UNREAD, *_identities(spec))
    unread = {name for name in stored_shapes(it) if not any(part in name for part in allowed)}
    assert unread - set(sources) <= {"lm_head.weight"}


def _identities(spec: DecoderSpec) -> set[str]:
    """Parts of names of experts that give what they get, for which Transformers writes weights too."""
    return {
        f".experts.{number}."
        for part in (layer.feed_forward for layer in spec.layers)
        if isinstance(part, Moe)
        for number in range(part.num_experts, part.num_experts + part.num_identity)
    }


@pytest.mark.parametrize("name", CASES)
def test_a_dropped_rule_is_noticed(name: str, built: Callable[[str], Built]) -> None:
    it = built(name)
    names, spec = names_of(it), it.description.spec
    targets = set(parameters(spec))
    for index, rule in enumerate(names.rules):
        last = len(spec.layers) - 1  # the first ones may be without experts
        if rule.placement not in (None, spec.layers[last].placement):
            continue
        if rule.target.format(layer=last, expert=0) not in targets:
            continue
        fewer = replace(names, rules=names.rules[:index] + names.rules[index + 1 :])
        with pytest.raises(ValueError, match="fills parts"):
            expand(fewer, spec)


def test_a_missing_tensor_is_named(built: Callable[[str], Built]) -> None:
    it = built("llama")
    shapes = stored_shapes(it)
    del shapes["model.layers.1.self_attn.k_proj.weight"]
    with pytest.raises(ModelLoadError, match=r"lacks tensor 'model.layers.1.self_attn.k_proj"):
        match(LLAMA_NAMES, it.description.spec, shapes)


def test_a_tensor_of_another_model_is_named(built: Callable[[str], Built]) -> None:
    it = built("llama_plain_tied")
    shapes = stored_shapes(it) | {"model.layers.0.self_attn.q_proj.bias": (64,)}
    with pytest.raises(ModelLoadError, match=r"q_proj.bias', which this architecture does not use"):
        match(LLAMA_NAMES, it.description.spec, shapes)


def test_a_wrong_shape_is_told_with_both_shapes(built: Callable[[str], Built]) -> None:
    it = built("llama")
    shapes = stored_shapes(it) | {"model.norm.weight": (63,)}
    with pytest.raises(ModelLoadError, match=r"\[63\], but config.json implies \[64\]"):
        match(LLAMA_NAMES, it.description.spec, shapes)


def test_old_position_buffers_and_a_tied_head_are_ignored(built: Callable[[str], Built]) -> None:
    it = built("llama_plain_tied")
    extra = {"lm_head.weight": (97, 64), "model.layers.1.self_attn.rotary_emb.inv_freq": (8,)}
    match(LLAMA_NAMES, it.description.spec, stored_shapes(it) | extra)


def test_a_part_filled_twice_is_a_mistake(built: Callable[[str], Built]) -> None:
    twice = replace(LLAMA_NAMES, rules=(*LLAMA_NAMES.rules, Rule("other", "final_norm.weight")))
    with pytest.raises(ValueError, match="final_norm"):
        expand(twice, built("llama").description.spec)


def test_split_transpose_and_fold(tmp_path: Path) -> None:
    """A checkpoint that stores q, k and v as one tensor, projections as [in, out], and norms as w - 1."""
    attention = Attention(num_heads=2, num_kv_heads=1, head_size=4, rope=Rope(dim=4))
    spec = DecoderSpec(
        vocab_size=5,
        hidden_size=6,
        max_position_embeddings=8,
        layers=(LayerSpec(mixer=attention, feed_forward=Dense(width=3)),),
        tie_head=True,
    )
    names = WeightMap(
        rules=(
            Rule("wte", "embedding.weight"),
            Rule("h.{layer}.attn", "layers.{layer}.mixer.qkv.weight", parts=(0, 1, 2)),
            Rule("h.{layer}.proj", "layers.{layer}.mixer.out.weight", transpose=True),
            Rule("h.{layer}.ln1", "layers.{layer}.norm_before_mixer.weight", fold="add_one"),
            Rule("h.{layer}.ln2", "layers.{layer}.norm_before_feed_forward.weight"),
            Rule("h.{layer}.gate", "layers.{layer}.feed_forward.gate_up.weight", parts=(0,)),
            Rule("h.{layer}.up", "layers.{layer}.feed_forward.gate_up.weight", parts=(1,)),
            Rule("h.{layer}.down", "layers.{layer}.feed_forward.down.weight"),
            Rule("ln", "final_norm.weight"),
        )
    )
    shapes = {"wte": (5, 6), "h.0.attn": (16, 6), "h.0.proj": (8, 6), "h.0.ln1": (6,)}
    shapes |= {"h.0.ln2": (6,), "h.0.gate": (3, 6), "h.0.up": (3, 6), "h.0.down": (6, 3)}
    shapes |= {"ln": (6,)}
    generator = torch.Generator().manual_seed(1)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with checkpoint_source(
        tmp_path, names, spec, dtype=torch.float32, device=CPU, progress=False
    ) as weights:
        assert torch.equal(weights("layers.0.mixer.qkv.weight"), tensors["h.0.attn"])
        assert torch.equal(weights("layers.0.mixer.out.weight"), tensors["h.0.proj"].t())
        assert torch.equal(weights("layers.0.norm_before_mixer.weight"), tensors["h.0.ln1"] + 1)
        gate_up = torch.cat((tensors["h.0.gate"], tensors["h.0.up"]))
        assert torch.equal(weights("layers.0.feed_forward.gate_up.weight"), gate_up)


def test_heads_that_stand_together_are_taken_apart(tmp_path: Path) -> None:
    """Rows of q, k and v of one head are neighbours in the checkpoint; two rows before them are padding."""
    heads = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).view(2, 3, 4, 6)  # [H, 3, D, C]
    save_file(
        {"w": heads.view(24, 6), "b": heads[..., 0].reshape(24).clone()}, tmp_path / "a.safetensors"
    )
    pieces = [
        Piece("w", (0, 1, 2), (24, 6), False, "gather_heads", sizes=(8, 8, 8), groups=2),
        Piece("b", (0, 1, 2), (24,), False, "gather_heads", sizes=(8, 8, 8), groups=2),
        Piece("w", (0,), (24, 6), False, "none", skip=2),
    ]
    weight, bias, cut = (
        folded(load_file(tmp_path / "a.safetensors")[it.source], it) for it in pieces
    )
    assert torch.equal(weight, torch.cat([heads[:, part].reshape(8, 6) for part in range(3)]))
    assert torch.equal(bias, weight[:, 0])
    assert torch.equal(cut, heads.view(24, 6)[2:])
    halves = [
        folded(heads.view(24, 6), Piece("w", (0,), (24, 6), False, fold, groups=3))
        for fold in ("first_halves", "second_halves")
    ]
    both = heads.view(3, 2, 4, 6)  # [H, 2, D, C]
    assert torch.equal(
        torch.stack(halves, 1), both.transpose(0, 1).reshape(2, 12, 6).transpose(0, 1)
    )
    taps = folded(heads.view(24, 1, 6), Piece("w", (0,), (24, 6), False, "exp", squeeze=True))
    assert torch.equal(taps, heads.view(24, 6).exp())


@pytest.mark.parametrize(("name", "prefix"), [("gpt2", "transformer."), ("opt", "model.")])
def test_names_may_lack_the_start_that_old_files_leave_out(
    name: str, prefix: str, built: Callable[[str], Built]
) -> None:
    it = built(name)
    names, spec = names_of(it), it.description.spec
    shapes = {key.removeprefix(prefix): shape for key, shape in stored_shapes(it).items()}
    if name == "gpt2":
        shapes |= {"h.0.attn.bias": (1, 1, 256, 256), "h.1.attn.masked_bias": ()}
    plan = match(names, spec, shapes)
    assert not any(piece.source.startswith(prefix) for found in plan.values() for piece in found)
    mixed = stored_shapes(it) | {"wte.weight": (97, 64), "decoder.fc1.weight": (80, 64)}
    with pytest.raises(ModelLoadError, match="which this architecture does not use"):
        match(names, spec, mixed)


def test_files_of_gemma3_with_pictures_are_read_under_both_kinds_of_names() -> None:
    """Published ones begin with language_model.model, those that came later with model.language_model."""
    case = CASES["gemma3_text"].config | {"tie_word_embeddings": False}
    architecture = ARCHITECTURES["Gemma3ForConditionalGeneration"]
    spec = architecture.describe(HfConfig(case))
    assert not spec.tie_head
    pieces = [piece for found in expand(architecture.names, spec).values() for piece in found]
    new = {piece.source: piece.shape for piece in pieces}
    assert {name.split(".")[0] for name in new} == {"model", "lm_head"}
    old = {
        f"language_model.{name.replace('model.language_model.', 'model.')}": shape
        for name, shape in new.items()
    }
    towers = ("vision_tower.a.weight", "multi_modal_projector.b.weight")
    for shapes, start in ((new, "model."), (old, "")):
        plan = match(architecture.names, spec, shapes | {f"{start}{name}": (3,) for name in towers})
        assert {piece.source for found in plan.values() for piece in found} == set(shapes)
