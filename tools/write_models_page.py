"""Writes docs/models.md from the registry and the tests' published files; `--check` only compares.

The list of a terminal is `quire models`.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from quire.models.catalogue import Row, rows
from quire.models.registry import known_as

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "models.md"
CONFIGS = ROOT / "tests" / "models" / "configs"

_HEAD = """# Models

Written by `tools/write_models_page.py`; `quire models` prints the list of an installation, and
`quire models FOLDER` says how a checkpoint is described.

An architecture is what `architectures` in config.json names. Each of them is a description that one decoder runs
([how to add one](howto_model.md)). For each that generates text the tests compare with Transformers: float32 logits
at every position within 1e-4 (2e-4 with latent attention and where scores are not divided) on tiny models with odd
values in every field, and on the published files below with their sizes shrunk; thirty-two greedy tokens through the
whole engine; the same bits in chunks as at once. What Transformers lacks is compared with plain torch, written from
the public description (`tests/models/plain_models.py`). Encoders, the families `bert`, `bert_kin` and `bert_rope`, have
tests of their own, and so have the [names of models that pool](pooling.md), which stand for the architectures below.
Encoder-decoder models, the families `bart` and `t5`, too: what the encoder gives and the logits within 1e-4, each
field that a test can see, 32 greedy tokens in mixed batches ([prompts and limits](vllm_programs.md)).
Of models that see or hear the decoder of the text is served.
{confirmed} of the {published} published files agree with a copy elsewhere, which `tests/models/sources.json` names;
those in brackets have no source.
Batches, prefix caching, structured outputs and quantization of weights while loading work for each.

Any other causal model of an installed Transformers (`pip install 'quire[transformers]'`) runs from its code, with
our products, norms, attention and cache; `--model-impl transformers` asks for that where there is a description too,
and `--model-impl quire` forbids it. The code is followed once, in a process of its own, on tensors without numbers;
what it did becomes a list of operations that is then carried out without it. Refused with a sentence: attention that
does not go through Transformers' attention interface or has masks other than causal ones and windows, recurrent
states, experts, encoder-decoders, code that looks at numbers, and code that mixes tokens outside attention.
Operations left to torch whose rows may follow their batch in the last bits stand in the start table, `model_impl`.
[Encoders](pooling.md) run so too.

`quire verify MODEL` runs a prompt here and in Transformers and prints for every layer, and for the logits, by how much
they differ; then greedy tokens. It names the first layer beyond the tolerance and ends with 1; 0 is agreement, 2 that
they cannot be compared. Quantized checkpoints are compared with Transformers on the same weights made floats by our
readers, GGUF files on floats that Transformers makes; `--reference FOLDER` compares with another checkpoint.

{count} architectures in {families} families.

| architecture | family | parts beyond the plain layer | published files in the tests |
| --- | --- | --- | --- |
"""


def published() -> dict[str, list[str]]:
    """Names of published files by architecture; in brackets those without a source."""
    sourced = json.loads((CONFIGS.parent / "sources.json").read_text())
    found: dict[str, list[str]] = defaultdict(list)
    for path in sorted(CONFIGS.glob("*.json")):
        values = json.loads(path.read_text())
        name = path.stem if path.stem in sourced else f"({path.stem})"
        found[known_as(values["architectures"][0])].append(name)
    return found


def line(row: Row, files: list[str]) -> str:
    """One row of the table."""
    names = ", ".join(f"`{name}`" for name in (row.name, *row.also))
    cells = (names, row.family, ", ".join(row.parts), ", ".join(files))
    return f"| {' | '.join(cells)} |".replace("|  |", "| |")


def page() -> str:
    """The whole page."""
    found, files = rows(), published()
    head = _HEAD.format(
        count=len(found),
        families=len({row.family for row in found}),
        published=sum(map(len, files.values())),
        confirmed=len(json.loads((CONFIGS.parent / "sources.json").read_text())),
    )
    return head + "\n".join(line(row, files[row.name]) for row in found) + "\n"


def main() -> int:
    """Writes the page, or with --check returns 1 if it is not as it would be written."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(text)
        return 0
    if PAGE.exists() and PAGE.read_text() == text:
        return 0
    print(f"{PAGE.relative_to(ROOT)} is out of date; run python tools/write_models_page.py")
    return 1


if __name__ == "__main__":
    sys.exit(main())
