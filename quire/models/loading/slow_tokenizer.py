"""Writes tokenizer.json for a folder that has other files of a tokenizer, as Transformers reads them.

`python -m quire.models.loading.slow_tokenizer FOLDER TARGET`, for `--tokenizer-mode slow`: code that comes with
the checkpoint does not run.
"""

from __future__ import annotations

import sys


def main(folder: str, target: str) -> int:
    """1, with a line on stderr, for a tokenizer that has no form as tokenizer.json."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, use_fast=True, trust_remote_code=False)
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        print(f"Transformers makes no tokenizer of it ({text})", file=sys.stderr)
        return 1
    if not getattr(tokenizer, "is_fast", False):
        print(f"{type(tokenizer).__name__} has no form as tokenizer.json", file=sys.stderr)
        return 1
    tokenizer.save_pretrained(target)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
