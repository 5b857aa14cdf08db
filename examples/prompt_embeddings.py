"""Gives a prompt as embeddings: `python examples/prompt_embeddings.py [folder of a checkpoint]`.

Over HTTP the same rows go into `prompt_embeds` of /v1/completions, as base64 of a safetensors or .npy file, where
the server was started with --enable-prompt-embeds.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors import safe_open

from quire import LLM, SamplingParams
from quire.config.demo import FOLDER

PROMPT = "The capital of France is"


def embedding_table(folder: Path) -> torch.Tensor:
    """The embedding [V, hidden] of a checkpoint; models that scale it need the scaled rows."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name.endswith("embed_tokens.weight"):
                    return file.get_tensor(name)
    raise SystemExit(f"{folder} has no embed_tokens.weight")


def main(folder: Path) -> None:
    """Prints the answer to a text and to the embeddings of its tokens: they are the same."""
    table = embedding_table(folder)
    params = SamplingParams(temperature=0.0, max_tokens=8)
    with LLM(str(folder), enable_prompt_embeds=True, max_model_len=1024) as llm:
        ids = llm.get_tokenizer().encode(PROMPT)
        for prompt in (PROMPT, {"prompt_embeds": table[torch.tensor(ids)]}):
            print(repr(llm.generate(prompt, params, use_tqdm=False)[0].outputs[0].text))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
