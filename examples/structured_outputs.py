"""Answers that keep to a form: `python examples/structured_outputs.py [folder or hub name]`."""

from __future__ import annotations

import json
import sys

from quire import LLM, SamplingParams
from quire.protocol.params import StructuredOutputsParams

CITY = {
    "type": "object",
    "properties": {"capital": {"enum": ["Berlin", "London", "Paris"]}},
    "required": ["capital"],
    "additionalProperties": False,
}
FORMS = {
    "choice": StructuredOutputsParams(choice=["London", "Paris"]),
    "regex": StructuredOutputsParams(regex=r"[A-Z][a-z ]+France is [A-Z][a-z]{2,8}\."),
    "json": StructuredOutputsParams(json=CITY),
}


def main(model: str) -> None:
    """Prints one answer of each form; the last one is read as JSON."""
    question = [{"role": "user", "content": "What is the capital of France?"}]
    with LLM(model, max_model_len=1024) as llm:
        for name, form in FORMS.items():
            params = SamplingParams(temperature=0.0, max_tokens=64, structured_outputs=form)
            text = llm.chat(question, params, use_tqdm=False)[0].outputs[0].text
            print(f"{name}: {json.loads(text) if name == 'json' else text}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
