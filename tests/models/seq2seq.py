"""Encoder-decoder cases: tiny configs with odd values, checkpoints of them, and passes of ours and of Transformers.

What is compared is `test_seq2seq` and `tests.e2e.test_seq2seq`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from quire.engine.kvcache.limits import plan_layout
from quire.layers.context import ForwardContext
from quire.models.build import build_from_spec
from quire.models.cache_need import cache_groups
from quire.models.decoder import Decoder
from quire.models.names import WeightMap
from quire.models.registry import ARCHITECTURES, describe
from quire.models.spec import DecoderSpec
from quire.ops.arena import Arena
from quire.ops.registry import Table
from quire.protocol.params import SamplingParams
from quire.protocol.request import EncoderInput
from quire.protocol.step import NewRow, StepPlan
from quire.worker.batch import BatchBuilder
from quire.worker.memory import CacheMemory
from quire.worker.state import WorkerState
from quire.worker.text_encoder import TextEncoder

CPU = torch.device("cpu")
VOCABULARY = 97
_COMMON = {"vocab_size": VOCABULARY, "is_encoder_decoder": True, "torch_dtype": "float32"}


def t5(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}
    sizes = {"d_model": 64, "d_kv": 24, "d_ff": 80, "num_heads": 4, "n_positions": 256}
    sizes |= {"num_layers": 2, "num_decoder_layers": 3, "relative_attention_num_buckets": 8}
    more = {"relative_attention_max_distance": 20, "layer_norm_epsilon": 0.03}
    ends = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    return _COMMON | names | sizes | more | ends | values


def bart(**values: Any) -> dict[str, Any]:
    names = {"architectures": ["BartForConditionalGeneration"], "model_type": "bart"}
    sizes = {"d_model": 64, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 80}
    sizes |= {"encoder_attention_heads": 4, "decoder_attention_heads": 2, "decoder_ffn_dim": 96}
    more = {"max_position_embeddings": 256, "scale_embedding": True, "activation_function": "relu"}
    ends = {"decoder_start_token_id": 2, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    return _COMMON | names | sizes | more | ends | {"forced_bos_token_id": None} | values


_GATED = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
_UMT5 = {"architectures": ["UMT5ForConditionalGeneration"], "model_type": "umt5"}
CASES: dict[str, dict[str, Any]] = {
    "t5": t5(),
    "flan_t5": t5(**_GATED),
    "mt5": t5(architectures=["MT5ForConditionalGeneration"], model_type="mt5", **_GATED),
    # Transformers 5 scales the logits of a head of its own too, which its earlier versions did not.
    "umt5": t5(**_GATED | {"tie_word_embeddings": True}, **_UMT5),
    "bart": bart(),
    "mbart": bart(architectures=["MBartForConditionalGeneration"], model_type="mbart"),
}


def write(folder: Path, config: dict[str, Any], *, seed: int = 0) -> Path:
    """A random checkpoint with exactly this config.json, in which every part matters; with a head of its own
    where config.json says so, which Transformers' random models never have."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config)
    (folder / "config.json").write_text(text)
    model = _model(folder)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in (*model.named_parameters(), *model.named_buffers()):
            noise = torch.randn(weight.shape, generator=generator)
            if weight.dim() == 1:
                weight.copy_(0.4 * noise + (0.0 if name.endswith("bias") else 1.0))
            elif "relative" in name or "final_logits_bias" in name:
                weight.copy_(1.5 * noise)
            elif "embed" in name or "shared" in name:
                weight.copy_(0.4 * noise)
            else:
                weight.copy_(noise / weight.shape[1] ** 0.5)
    model.save_pretrained(folder)
    if config.get("tie_word_embeddings") is False:
        tensors = load_file(folder / "model.safetensors")
        noise = torch.randn(tensors["shared.weight"].shape, generator=generator)
        tensors["lm_head.weight"] = 0.1 * noise
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    (folder / "config.json").write_text(text)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return folder


def _model(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    return AutoModelForSeq2SeqLM.from_config(
        AutoConfig.from_pretrained(folder), dtype=torch.float32
    )


def their_model(folder: Path) -> Any:
    """Transformers' model of a checkpoint; a head of its own is put in by hand, since its T5 ties it always."""
    from safetensors.torch import load_file
    from transformers import AutoModelForSeq2SeqLM

    model = AutoModelForSeq2SeqLM.from_pretrained(folder, dtype=torch.float32).eval()
    head = load_file(folder / "model.safetensors").get("lm_head.weight")
    if head is not None:
        model.lm_head.weight = torch.nn.Parameter(head)
    return model


def their_pass(model: Any, read: Sequence[int], ids: Sequence[int]) -> tuple[Any, Any]:
    """What the encoder gives [T, C], and logits [T', V]."""
    with torch.inference_mode():
        found = model(
            input_ids=torch.tensor([list(read)]), decoder_input_ids=torch.tensor([list(ids)])
        )
    return found.encoder_last_hidden_state[0], found.logits[0]


def greedy(model: Any, read: Sequence[int], begin: Sequence[int], count: int) -> list[int]:
    """The likeliest tokens one by one; every step computes the whole text anew."""
    ids = list(begin)
    for _ in range(count):
        ids.append(int(their_pass(model, read, ids)[1][-1].argmax()))
    return ids[len(begin) :]


def load(
    folder: Path,
    *,
    spec: DecoderSpec | None = None,
    names: WeightMap | None = None,
    overrides: dict[str, str] | None = None,
) -> Decoder:
    """Our decoder of a checkpoint, with another description or weight map if given."""
    description = describe(str(folder))
    decoder = build_from_spec(
        spec or description.spec,
        names or ARCHITECTURES[description.architecture].names,
        folder,
        Table(overrides=overrides or {}),
        dtype=torch.float32,
        device=CPU,
        load_format="auto",
        progress=False,
        max_model_len=256,
    )
    assert isinstance(decoder, Decoder)
    return decoder


class Watched:
    """A decoder whose encoder's results are kept."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self.encoded: list[torch.Tensor] = []

    def encode(self, ctx: ForwardContext) -> None:
        """As the decoder does it."""
        self.encoded.append(self._decoder.encode(ctx).clone())


def our_pass(
    decoder: Decoder, read: Sequence[int], ids: Sequence[int], *, chunk: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """What `their_pass` gives; the decoder takes its ids in chunks. Blocks hold NaN before they are written."""
    groups = cache_groups(decoder.spec, block_size=16, dtype_bytes=4, max_model_len=256)
    layout = plan_layout(groups, 16 << 20)
    state = WorkerState(layout=layout, max_num_seqs=2, max_model_len=256)
    memory = CacheMemory(layout=layout, decoder=decoder, device=CPU, table=Table())
    memory.buffer.fill_(0xFF)
    arena = Arena(CPU, 4 << 20)
    builder = BatchBuilder(state=state, memory=memory, arena=arena, device=CPU)
    watched = Watched(decoder)
    encoder = TextEncoder(decoder=watched, state=state, memory=memory, arena=arena, device=CPU)  # type: ignore[arg-type]
    first = [layout.blocks_per_slab(0) * layout.num_slabs // 2, 3]
    new = NewRow(
        row=1,
        request_id="",
        index=0,
        token_ids=list(ids),
        num_prompt_tokens=len(ids),
        params=SamplingParams(),
        seed=0,
        block_ids=[[at + (7 * i) % 16 for i in range(16)] for at in first],
        encoder=EncoderInput(token_ids=list(read)),
    )
    found, size = [], chunk or len(ids)
    with torch.inference_mode():
        for start in range(0, len(ids), size):
            is_first, count = start == 0, min(size, len(ids) - start)
            plan = StepPlan(
                step=0,
                new_rows=[new] if is_first else [],
                rows=[1],
                starts=[start],
                counts=[count],
                samples=[False],
                encodes={1: len(read)} if is_first else {},
            )
            state.apply(plan)
            encoder.encode(plan)
            context = builder.build(plan).context
            found.append(decoder.logits(decoder.forward(context), context).clone())
    return watched.encoded[0], torch.cat(found)
