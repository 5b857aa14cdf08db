"""Texts as vectors: `python examples/embeddings.py [folder or hub name of any model]`.

A model that was made to write text gives the state of its last token; one made for embeddings does better.
"""

from __future__ import annotations

import sys

from quire import LLM

TEXTS = [
    "What is the capital of France?",
    "What is the capital of Italy?",
    "What is 3 plus 4?",
]


def main(model: str) -> None:
    """Prints how alike the first text and each other one are."""
    with LLM(model, runner="pooling", convert="embed", max_model_len=1024) as llm:
        vectors = [one.outputs.embedding for one in llm.embed(TEXTS, use_tqdm=False)]
    for text, vector in zip(TEXTS, vectors, strict=True):
        alike = sum(one * other for one, other in zip(vectors[0], vector, strict=True))
        print(f"{alike:.3f}  {text}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
