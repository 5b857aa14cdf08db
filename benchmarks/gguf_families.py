"""Compares tiny GGUF files of many architectures here and in llama.cpp: greedy tokens, and vectors of embedders.

The files are those that the tests write, in float32, without what llama.cpp does not read (biases mostly).
llama.cpp runs in the environment that `benchmarks.peers` sets up, each file in a process of its own, with keys and
values in float32.

    python -m benchmarks.gguf_families
    python -m benchmarks.gguf_families --only deepseek2,bert

One line of JSON for each: of how many greedy tokens behind a random prompt ours would be the same, with llama.cpp's
before them, and the largest difference of a logit by their standard deviation; of embedders the least cosine,
and whether the token ids are the same.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.gguf_tokens import PEER
from quire.models.registry import describe
from tests.models import (
    gguf_families,
    gguf_recent,
    gguf_states,
    harness,
    test_gguf,
    test_gguf_embedders,
)
from tests.pooling_checkpoints import write_model, write_modules

NUM_TOKENS, NUM_PROMPT = 32, 40
GENERATE = """
import json, sys
import numpy as np
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=256, n_threads=1, verbose=False, logits_all=True, type_k=0, type_v=0)
ids, count = json.loads(sys.argv[2]), int(sys.argv[3])
made = []
for token in model.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0, reset=True):
    made.append(int(token))
    if len(made) == count:
        break
np.save(sys.argv[4], np.array(model.scores[: len(ids) + count - 1]))
print(json.dumps(made))
"""
EMBED = """
import json, sys
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=128, n_threads=1, verbose=False, embedding=True)
texts = json.loads(sys.argv[2])
ids = [model.tokenize(text.encode(), special=False) for text in texts]
print(json.dumps([ids, [model.embed(text, normalize=True) for text in texts]]))
"""

PLAIN_YARN = gguf_states.YARN | {"beta_fast": 32.0, "beta_slow": 1.0}
UNBIASED = {"attention_bias": False}
LATENT: dict[str, Any] = {"attention_bias": False, "rope_scaling": PLAIN_YARN}
LATENT["rms_norm_eps"] = 1e-6  # as the norm of the latent has it; llama.cpp takes one for all
LATENT |= {"n_group": 1, "topk_group": 1, "topk_method": "greedy"}
ONE_GROUP: dict[str, Any] = {
    "deepseek2.attention.layer_norm_rms_epsilon": ["FLOAT32", 1e-6],
    **{f"deepseek2.expert_group_{key}": ["UINT32", 1] for key in ("count", "used_count")},
    **{f"deepseek2.rope.scaling.yarn_beta_{key}": None for key in ("fast", "slow")},
}
"""llama.cpp has its own way with groups, and with YaRN's borders in this architecture."""
DEEP = 25
LOCAL = [layer % 5 != 4 for layer in range(DEEP)]
GEMMA3N: dict[str, Any] = {
    "num_hidden_layers": DEEP,
    "num_kv_shared_layers": DEEP - 20,
    "layer_types": [("full_attention", "sliding_attention")[one] for one in LOCAL],
    "activation_sparsity_pattern": [0.95] * 10 + [0.0] * (DEEP - 10),
    "intermediate_size": [8192] * DEEP,
    "hidden_size_per_layer_input": 256,
    "laurel_rank": 64,
    "altup_active_idx": 0,
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
}
GEMMA3N_SETTINGS: dict[str, Any] = {
    "gemma3n.block_count": ["UINT32", DEEP],
    "gemma3n.feed_forward_length": ["UINT32", 8192],
    "gemma3n.attention.shared_kv_layers": ["UINT32", DEEP - 20],
    "gemma3n.embedding_length_per_layer_input": ["UINT32", 256],
    "gemma3n.altup.active_idx": ["UINT32", 0],
    "gemma3n.final_logit_softcapping": ["FLOAT32", 30.0],
    "gemma3n.attention.layer_norm_rms_epsilon": ["FLOAT32", 1e-6],
    "gemma3n.attention.sliding_window_pattern": ["ARRAY:BOOL", LOCAL],
    "gemma3n.activation_sparsity_scale": [
        "ARRAY:FLOAT32",
        [1.6448534727] * 10 + [float("-inf")] * (DEEP - 10),
    ],
}
"""What is constant in llama.cpp; of the widths it takes deviations of one number less, which shows in narrow ones."""

USUAL_EPS = {"rms_norm_eps": 1e-6}
SMALL_VALUES = {"linear_value_head_dim": 12, **USUAL_EPS}
"""As large as keys, of which llama.cpp has no others; and what lengths are made one with."""


def _usual_eps(arch: str) -> dict[str, Any]:
    return {f"{arch}.attention.layer_norm_rms_epsilon": ["FLOAT32", 1e-6]}


def _small_values(arch: str) -> dict[str, Any]:
    return {f"{arch}.ssm.inner_size": ["UINT32", 48], **_usual_eps(arch)}


PICKED: dict[str, Any] = {"index_head_dim": 64, "attention_bias": False, "rope_scaling": None}
PICKED |= {"n_group": 1, "topk_group": 1, **USUAL_EPS}
PICKED_SETTINGS: dict[str, Any] = {
    "deepseek32.attention.indexer.key_length": ["UINT32", 64],
    "deepseek32.expert_gating_func": ["UINT32", 2],
    **{f"deepseek32.expert_group_{key}": ["UINT32", 1] for key in ("count", "used_count")},
    **dict.fromkeys(
        f"deepseek32.rope.scaling.{key}"
        for key in ("type", "factor", "original_context_length", "yarn_log_multiplier")
    ),
    **dict.fromkeys(f"deepseek32.rope.scaling.yarn_beta_{key}" for key in ("fast", "slow")),
    **_usual_eps("deepseek32"),
}
"""Keys of an indexer are turned by Hadamard's matrix there, of a power of two."""
DELTA_HEADS = {"head_dim": 12, "num_heads": 4, "short_conv_kernel_size": 3}
DELTA_HEADS |= {"kda_layers": [1], "full_attn_layers": [2]}
"""As many heads as the other layers have, of which llama.cpp knows."""


CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "deepseek2": (LATENT, ONE_GROUP),
    "deepseek2_sigmoid": (
        LATENT,
        {"deepseek2.expert_gating_func": ["UINT32", 2], **ONE_GROUP},
    ),
    "mamba": ({"use_bias": False}, {}),
    "mamba2": ({"use_bias": False}, {}),
    "lfm2": ({}, {}),
    "lfm2moe": ({}, {}),
    "granitehybrid": (
        {"mamba_expand": 2, "mamba_d_head": 16, "mamba_proj_bias": False},
        {"granitehybrid.ssm.inner_size": ["UINT32", 128]},
    ),
    "nemotron_h": ({"use_bias": False, "mlp_bias": False}, {}),
    "nemotron_h_moe": ({}, {}),
    "falcon-h1": ({}, {}),
    "qwen3next": (
        {"linear_value_head_dim": 12, "rms_norm_eps": 1e-6},
        {
            "qwen3next.ssm.inner_size": ["UINT32", 48],
            "qwen3next.attention.layer_norm_rms_epsilon": ["FLOAT32", 1e-6],
        },
    ),
    "deepseek": ({}, {}),
    "exaone": (
        {"layer_norm_epsilon": 1e-5},
        {
            "exaone.attention.layer_norm_rms_epsilon": ["FLOAT32", 1e-5],
            "exaone.attention.layer_norm_epsilon": None,
        },
    ),
    "apertus": ({}, {}),
    "gemma3n": (GEMMA3N, GEMMA3N_SETTINGS),
    "llama4": (UNBIASED, {}),
    "deepseek32": (PICKED, PICKED_SETTINGS),
    "kimi-linear": (
        {"linear_attn_config": DELTA_HEADS, **USUAL_EPS},
        {"kimi-linear.expert_gating_func": ["UINT32", 2], **_usual_eps("kimi-linear")},
    ),
    "jamba": (
        {"mamba_expand": 2, "mamba_proj_bias": False},
        {"jamba.ssm.inner_size": ["UINT32", 128]},
    ),
    "glm-dsa": (
        {"index_head_dim": 64, "norm_topk_prob": True, **USUAL_EPS},
        {
            "glm-dsa.attention.indexer.key_length": ["UINT32", 64],
            **_usual_eps("glm-dsa"),
            "glm-dsa.expert_weights_norm": ["BOOL", True],
        },
    ),
    "exaone-moe": ({}, {"exaone-moe.expert_gating_func": ["UINT32", 2]}),
    "qwen35": (SMALL_VALUES, _small_values("qwen35")),
    "qwen35moe": (
        SMALL_VALUES,
        {
            "qwen35moe.rope.dimension_sections": ["ARRAY:INT32", [2, 2, 2, 0]],
            **_small_values("qwen35moe"),
        },
    ),
    "gemma4": (
        {"num_kv_shared_layers": 2},
        {
            "gemma4.attention.shared_kv_layers": ["UINT32", 2],
            "gemma4.feed_forward_length": ["ARRAY:INT32", [80] * 4 + [160] * 2],
        },
    ),
    "gemma4_keys": ({}, {}),
    "gemma4_experts": ({}, {}),
}
"""By the test's name: other values of its config, and further settings in the file. Without Phi 3.5 MoE, whose experts
llama.cpp weighs in another way than their authors."""
EMBEDDERS = {"Bert": "bert", "NomicBert": "nomic-bert"}


def theirs(program: str, *arguments: str) -> str:
    """The last line that a program prints in llama.cpp's environment. Raises CalledProcessError."""
    command = [str(PEER), "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


def compare(name: str, folder: Path) -> dict[str, Any]:
    """Greedy tokens of one family."""
    values, settings = CHANGES[name]
    config = gguf_families.CONFIGS[name]
    for known in (gguf_families.CONFIGS, gguf_states.CONFIGS, gguf_recent.CONFIGS):
        if name in known:
            known[name] = config | values
    written = gguf_families.WRITTEN[name]
    arch = written["arch"]
    more = {f"{arch}.vocab_size": ["UINT32", config["vocab_size"]], **settings}
    kept_settings = {key: one for key, one in (written["settings"] | more).items() if one}
    gguf_families.WRITTEN[name] = {"arch": arch, "settings": kept_settings}
    plain = harness.write_checkpoint(folder / "plain", config | values)
    unused = _unused if name == "gemma3n" else None
    path = gguf_families.write_family(name, plain, folder / "m.gguf", unused)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(3, 90, (NUM_PROMPT,), generator=generator).tolist()
    kept = folder / "logits.npy"
    try:
        made = json.loads(theirs(GENERATE, str(path), json.dumps(ids), str(NUM_TOKENS), str(kept)))
    except subprocess.CalledProcessError as error:
        return {"name": name, "refused": error.stderr.strip().splitlines()[-1:]}
    test_gguf.IDS[:] = [*ids, *made[:-1]]
    ours = test_gguf.logits(describe(str(path))).numpy()
    gap = np.abs(ours - np.load(kept)).max() / ours.std()
    same = sum(
        int(row.argmax()) == token for row, token in zip(ours[NUM_PROMPT - 1 :], made, strict=True)
    )
    return {"name": name, "same": same, "of": NUM_TOKENS, "gap": round(float(gap), 5)}


def _unused(writer: Any) -> None:
    """Keys of Gemma 3n's layers that share those of others: files have them, and llama.cpp wants them."""
    for layer in range(20, DEEP):
        for part, shape in (("k", (48, 64)), ("v", (48, 64)), ("k_norm", (24,))):
            name = f"blk.{layer}.attn_{part}.weight"
            writer.add_tensor(name, np.ones(shape, dtype=np.float32))


def embedders(family: str, folder: Path) -> dict[str, Any]:
    """Vectors and token ids of texts."""
    plain, arch = folder / "plain", EMBEDDERS[family]
    plain.mkdir()
    write_model(plain, family)
    write_modules(plain, "mean")
    settings = test_gguf_embedders.word_pieces(plain)
    path = test_gguf_embedders.write_file(plain, arch, "mean", **settings)
    texts = [text for text in test_gguf_embedders.TEXTS if text]
    ids, vectors = json.loads(theirs(EMBED, str(path), json.dumps(texts)))
    found = test_gguf_embedders.vectors(path, texts)
    cosines = [np.dot(a, b) for (_, a), b in zip(found, vectors, strict=True)]
    return {
        "name": arch,
        "least cosine": round(float(min(cosines)), 7),
        "same ids": sum(a == b for (a, _), b in zip(found, ids, strict=True)),
        "of": len(texts),
    }


def main() -> None:
    """Prints one line of JSON for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", help="names of tests or families, with commas between them")
    flags = parser.parse_args()
    if not PEER.is_file():
        sys.exit("llama.cpp is not set up: python -m benchmarks.peers setup")
    names = flags.only.split(",") if flags.only else [*CHANGES, *EMBEDDERS.values()]
    torch.set_num_threads(1)
    for name in names:
        with tempfile.TemporaryDirectory() as room:
            if name in CHANGES:
                line = compare(name, Path(room))
            else:
                line = embedders(next(k for k, v in EMBEDDERS.items() if v == name), Path(room))
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
