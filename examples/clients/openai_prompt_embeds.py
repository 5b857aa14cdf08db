"""A prompt as embeddings: `python examples/clients/openai_prompt_embeds.py [base URL] [folder of the checkpoint]`.

Start the server with `--enable-prompt-embeds`. The rows [tokens, hidden] travel as base64 of an .npy or
safetensors file. They may come from anywhere; here they are the model's own, so that the answers are the same.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path

import httpx
import numpy as np
from openai import OpenAI
from safetensors import safe_open

from quire.config.demo import FOLDER

PROMPT = "The capital of France is"


def embedding_rows(folder: Path, ids: list[int]) -> np.ndarray:
    """Rows of a checkpoint's embedding, as float32 [len(ids), hidden]."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                if name.endswith("embed_tokens.weight"):
                    rows: np.ndarray = file.get_tensor(name)[ids].float().numpy()
                    return rows
    raise SystemExit(f"{folder} has no embed_tokens.weight")


def main(base_url: str, folder: Path) -> None:
    """Prints the answer to a text, and to the embeddings of its tokens."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    tokenize = base_url.removesuffix("/v1") + "/tokenize"
    ids = httpx.post(tokenize, json={"prompt": PROMPT}).json()["tokens"]
    file = io.BytesIO()
    np.save(file, embedding_rows(folder, ids))
    embeds = base64.b64encode(file.getvalue()).decode()
    text = client.completions.create(model=model, prompt=PROMPT, max_tokens=4, temperature=0)
    rows = client.completions.create(
        model=model, prompt="", max_tokens=4, temperature=0, extra_body={"prompt_embeds": embeds}
    )
    print(repr(text.choices[0].text))
    print(repr(rows.choices[0].text))


if __name__ == "__main__":
    main(
        sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1",
        Path(sys.argv[2]) if len(sys.argv) > 2 else FOLDER,
    )
