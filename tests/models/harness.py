"""Runs a decoder over a paged cache without a worker, and the same checkpoint through Transformers.

Leaves what is compared, and how closely, to the tests.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from quire.engine.kvcache.kinds import rules_of
from quire.layers.context import ForwardContext
from quire.models.build import build_from_spec
from quire.models.cache_need import cache_groups
from quire.models.compressed import Kept
from quire.models.decoder import Decoder
from quire.models.names import WeightMap
from quire.models.registry import ARCHITECTURES, ModelDescription
from quire.models.spec import DecoderSpec
from quire.ops.arena import Arena
from quire.ops.attention import AttentionStep, CachePlace
from quire.ops.formats import CACHE_FORMATS
from quire.ops.registry import Table
from quire.ops.state import StatePlan, StateStep, StateView, state_bytes
from quire.protocol.cache import CacheGroup
from tests.models.plain_zoo import PLAIN_MODELS
from tests.models.stand_ins import STAND_INS

CPU = torch.device("cpu")
BLOCKS_PER_SLAB = 3
TABLES = ("embed_tokens", "embed_positions", "embed_in", "embed_out", "lm_head", "wte", "wpe")
TABLES += ("word_embeddings.", "tokens_embed", "positions_embed")
"""Parts of names of matrices that are read by rows, and of heads."""
IN_FIRST = ("gpt2", "jais", "openai-gpt")
"""Families whose matrices stand as [in, out]."""
WRITERS = (
    "embed_tokens",
    "embed_positions",
    "out_proj",
    "fc2",
    "o_proj",
    "down_proj",
    "wte",
    "mlp.w2",
    "attention.output.weight",
    "feed_forward.value.weight",
)


NEAR_ONE = ("gemma", "recurrent_gemma", "plamo2", "qwen3_next", "qwen3_5", "step3p7", "minimax_m3")
EDGE = ("gemma3n", "gemma4")
"""Families whose norms compute with one more than their weights; but these do not."""


SHARPENERS = ("_adapter_list.", "shared_transformer.feed_forward", ".linear.weight")
SHARPENERS += ("shared_transformer.self_attn.q_proj", "shared_transformer.self_attn.k_proj")
"""Parts of names of Zamba's matrices in a row, without anything added between them, in which roundings grow."""


OWN_REFERENCES = {"ouro": "tests.models.ouro_reference"}
"""Modules with what Transformers and its other architectures have not, by model_type."""

REFERENCE = "reference"
"""Where the stand-in of an architecture that Transformers lacks is, below the checkpoint's folder."""


class PagedRun:
    """One sequence in a paged cache of its own, fed in chunks; its blocks lie in a shuffled order.

    Slots that nothing was written to hold NaN. With `drop_passed`, blocks that a window has left
    behind are null in the block table, as the engine makes them.
    """

    def __init__(
        self,
        decoder: Decoder,
        *,
        max_len: int,
        block_size: int = 16,
        drop_passed: bool = True,
        interval: int = 32,
        device: torch.device = CPU,
    ) -> None:
        self.decoder = decoder
        self.device = device
        self.block_size = block_size
        self.drop_passed = drop_passed
        self.arena = Arena(device, chunk_bytes=4 << 20)
        self.num_computed = 0
        found = [one.attend for one in decoder.bindings if one.attend is not None]
        self._format = found[0].signature.format if found else "plain"
        stored = CACHE_FORMATS[self._format]
        self.groups = cache_groups(
            decoder.spec,
            block_size=block_size,
            dtype_bytes=stored.number_bytes(decoder.dtype.itemsize),
            scale_bytes=stored.scale_bytes,
            interval=interval,
        )
        self.group_of: list[int | None] = [None] * len(decoder.bindings)
        self.caches: list[Any] = [None] * len(decoder.bindings)
        self.plans: list[Any] = []
        self.tables: list[np.ndarray] = []
        for index, group in enumerate(self.groups):
            add = self._add_states if group.kind == "recurrent" else self._add_group
            add(index, group, -(-max_len // group.block_size))

    def _add_states(self, index: int, group: CacheGroup, num_blocks: int) -> None:
        """A slab of garbage for each block, in which the layers' states lie one behind the other."""
        size = (num_blocks, group.block_bytes)
        slab = torch.full(size, 0xFF, dtype=torch.uint8, device=self.device)
        offset = 0
        for number in group.layers:
            views = []
            for shape in self.decoder.bindings[number].spec.states():
                views.append(
                    StateView.inside(
                        slab,
                        shape,
                        blocks_per_slab=1,
                        block_bytes=group.block_bytes,
                        offset=offset,
                    )
                )
                offset += state_bytes(shape)
            self.caches[number] = tuple(views)
            self.group_of[number] = index
        self.plans.append(StatePlan(group.block_size))
        self.tables.append(np.random.default_rng(index).permutation(num_blocks).astype(np.int32))

    def _add_group(self, index: int, group: CacheGroup, num_blocks: int) -> None:
        num_slabs = -(-num_blocks // BLOCKS_PER_SLAB)
        size = (num_slabs, group.block_bytes * BLOCKS_PER_SLAB)
        slab = torch.full(size, 0xFF, dtype=torch.uint8, device=self.device)
        offset = 0
        for layer in group.layers:
            binding = self.decoder.bindings[layer]
            spec, provider = binding.spec, binding.attend.provider
            rows = spec.rows(self.block_size) if isinstance(spec, Kept) else self.block_size
            place = CachePlace(
                buffer=slab,
                block_size=rows,
                blocks_per_slab=BLOCKS_PER_SLAB,
                block_bytes=group.block_bytes,
                layer_offset=offset,
            )
            sizes = (spec.num_kv_heads, spec.head_size, spec.value_size, self.decoder.dtype)
            self.caches[layer] = provider.view(place, *sizes, self._format)
            offset += provider.bytes_per_token(*sizes, self._format) * rows
            self.group_of[layer] = index
        self.plans.append(
            provider.new_plan(
                block_size=self.block_size,
                blocks_per_slab=BLOCKS_PER_SLAB,
                window=group.window,
                device=self.device,
            )
        )
        self.tables.append(np.random.default_rng(index).permutation(num_blocks).astype(np.int32))

    def context(self, ids: Sequence[int]) -> ForwardContext:
        """Fills the plans for the next `ids` and gives what the decoder needs."""
        start, end = self.num_computed, self.num_computed + len(ids)
        positions = np.arange(start, end, dtype=np.int64)
        for group, plan, table in zip(self.groups, self.plans, self.tables, strict=True):
            if group.kind == "recurrent":
                step = StateStep(
                    query_start=np.array([0, len(ids)], dtype=np.int32),
                    seq_lens=np.array([end], dtype=np.int32),
                    block_table=table[None],
                )
                plan.fill(step)
                continue
            slots = table[positions // self.block_size].astype(np.int64) * self.block_size
            visible = table.copy()
            if group.window is not None and self.drop_passed:
                visible[: rules_of(group).first_needed(start)] = -1
            step = AttentionStep(
                query_start=np.array([0, len(ids)], dtype=np.int32),
                seq_lens=np.array([end], dtype=np.int32),
                block_table=visible[None],
                slot_mapping=slots + positions % self.block_size,
            )
            provider = self.decoder.bindings[group.layers[0]].attend.provider
            provider.fill(plan, step)
        self.arena.reset()
        self.num_computed = end
        return ForwardContext(
            ids=torch.tensor(ids, dtype=torch.int64, device=self.device),
            positions=torch.from_numpy(positions)[None].to(self.device),
            plans=self.plans,
            caches=self.caches,
            group_of=self.group_of,
            arena=self.arena,
        )

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """Computes the next `ids`; [T, V] float32."""
        ctx = self.context(ids)
        hidden = self.decoder.forward(ctx)
        assert isinstance(hidden, torch.Tensor)
        return self.decoder.logits(hidden, ctx).clone()


def load(
    description: ModelDescription,
    *,
    max_len: int,
    spec: DecoderSpec | None = None,
    names: WeightMap | None = None,
    dtype: torch.dtype = torch.float32,
    load_format: str = "auto",
    table: Table | None = None,
    device: torch.device = CPU,
) -> Decoder:
    """The decoder of a described checkpoint, with another description or weight map if given."""
    return build_from_spec(
        spec or description.spec,
        names or ARCHITECTURES[description.architecture].names,
        Path(description.path),
        table or Table(),
        dtype=dtype,
        device=device,
        load_format=load_format,
        progress=False,
        max_model_len=max_len,
    )


def our_logits(
    decoder: Decoder,
    ids: Sequence[int],
    *,
    max_len: int,
    chunk: int | None = None,
    device: torch.device = CPU,
) -> torch.Tensor:
    """[T, V] float32 at every position, computed in chunks of `chunk` tokens or at once."""
    run = PagedRun(decoder, max_len=max_len, device=device)
    size = chunk or len(ids)
    with torch.inference_mode():
        return torch.cat([run.logits(ids[at : at + size]) for at in range(0, len(ids), size)])


def reference_of(folder: Path | str) -> Path:
    """The folder that Transformers reads: the same, or that of the stand-in."""
    beside = Path(folder) / REFERENCE
    return beside if beside.is_dir() else Path(folder)


def their_model(
    folder: Path, *, dtype: torch.dtype = torch.float32
) -> Callable[[Sequence[int]], torch.Tensor]:
    """What makes [T, V] float32 of ids, read from the same folder: Transformers, or plain torch where it has none.

    Its plain attention adds Falcon's slopes twice, to the mask and to the scores; the other does not.
    """
    folder = reference_of(folder)
    config = json.loads((folder / "config.json").read_text())
    plain = PLAIN_MODELS.get(config["architectures"][0])
    if plain is not None:
        tensors = {
            key: it.to(dtype).float() for key, it in load_file(folder / "model.safetensors").items()
        }
        return lambda ids: plain.logits(tensors, config, torch.tensor(list(ids)))
    attention = "sdpa" if config["model_type"] == "falcon" else "eager"
    model = class_of(config).from_pretrained(folder, dtype=dtype, attn_implementation=attention)
    model.eval()

    def logits(ids: Sequence[int]) -> torch.Tensor:
        with torch.inference_mode():
            found: torch.Tensor = model(torch.tensor([list(ids)]), use_cache=False).logits[0]
        return found.float()

    return logits


def class_of(config: dict[str, Any]) -> Any:
    """The class of Transformers that finds a file's architecture: of text alone, or of images too."""
    transformers = importlib.import_module("transformers")
    if config["model_type"] == "mistral4":  # whose class it does not find by itself
        transformers.AutoModelForCausalLM.register(
            transformers.Mistral4Config, transformers.Mistral4ForCausalLM, exist_ok=True
        )
    sees = "text_config" in config or "vision_config" in config
    return transformers.AutoModelForImageTextToText if sees else transformers.AutoModelForCausalLM


def their_logits(
    folder: Path, ids: Sequence[int], *, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """[T, V] float32 of `their_model`."""
    return their_model(folder, dtype=dtype)(ids)


def write_checkpoint(
    folder: Path, config: dict[str, Any], *, seed: int = 0, quiet: float = 1.0, **save: Any
) -> Path:
    """A random checkpoint with exactly this config.json, scaled so that every part matters.

    Matrices have a gain of about 1.5, norm weights and biases spread widely. `quiet` multiplies
    what writes to the residual stream where `WRITERS` are its names.
    """
    from transformers import AutoConfig

    if config["model_type"] in OWN_REFERENCES:
        importlib.import_module(OWN_REFERENCES[config["model_type"]]).register()
    text, stand_in = json.dumps(config), STAND_INS.get(config["architectures"][0])
    if stand_in is not None:
        theirs = stand_in.config(config)
        home = write_checkpoint(folder / REFERENCE, theirs, seed=seed, quiet=quiet)
        written = load_file(home / "model.safetensors")
        if stand_in.reference is not None:
            save_file(
                stand_in.reference(written, theirs), home / "model.safetensors", {"format": "pt"}
            )
        tensors = stand_in.tensors(written, theirs)
        save_file(
            {key: it.contiguous() for key, it in tensors.items()}, folder / "model.safetensors"
        )
        (folder / "config.json").write_text(text)
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(text)
    plain = PLAIN_MODELS.get(config["architectures"][0])
    if plain is not None:
        made = {name: torch.empty(shape) for name, shape in plain.shapes(config).items()}
        fill(made, config["model_type"], seed=seed, quiet=quiet)
        save_file(made, folder / "model.safetensors", {"format": "pt"})
        return folder
    model = class_of(config).from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    generator = fill(dict(model.named_parameters()), config["model_type"], seed=seed, quiet=quiet)
    with torch.no_grad():
        for name, bias in (*model.named_buffers(), *model.named_parameters()):
            if "correction_bias" in name or "expert_bias" in name:  # a buffer in most families
                bias.copy_(0.3 * torch.randn(bias.shape, generator=generator))
            if name.endswith("tid2eid"):  # rows of different experts
                count = config["n_routed_experts"]
                order = torch.rand(len(bias), count, generator=generator).argsort(dim=-1)
                bias.copy_(order[:, : bias.shape[1]])
            if name.endswith("layer_scalar"):
                bias.copy_(1.0 + 0.4 * torch.randn(bias.shape, generator=generator))
    model.save_pretrained(folder, **save)
    (folder / "config.json").write_text(text)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def fill(
    weights: Mapping[str, torch.Tensor], kind: str, *, seed: int, quiet: float
) -> torch.Generator:
    """Gives each weight of a model_type random numbers; the generator stands behind the last one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in weights.items():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1 or "norm" in name.rpartition(".")[0].rpartition(".")[2]:
                near_one = kind.startswith(NEAR_ONE) and not kind.startswith(EDGE)
                bias = name.endswith("bias") or near_one or ".lambda_" in name
                weight.copy_(0.4 * noise if bias else 1.0 + 0.4 * noise)
            elif any(part in name for part in TABLES):
                weight.copy_(0.4 * noise)
            else:
                in_size = weight.shape[0 if kind in IN_FIRST else 1]
                in_size = (
                    weight.shape[-1] if name.endswith(("conv.weight", "conv1d.weight")) else in_size
                )
                weight.copy_(1.5 * noise / in_size**0.5)
            if name.endswith(
                "A_log"
            ):  # slow decays: Transformers takes them off each other in chunks
                weight.copy_(0.5 * noise - 2.0)
            if any(part in name for part in SHARPENERS):
                weight.mul_(0.4)
            if any(part in name for part in WRITERS):
                weight.mul_(quiet)
    return generator
