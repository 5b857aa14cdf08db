"""`quire verify`: the same checkpoint here and in Transformers, compared layer by layer.

What is compared is `quire.bench.verify`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from quire.protocol.errors import QuireError

if TYPE_CHECKING:
    from quire.bench.verify import Comparison
    from quire.bench.verify_sides import Ours, Theirs

_SEED = 11
_PROMPT_TOKENS = 48
_EXACT, _ROUNDED = 1e-3, 5e-2


def main(argv: Sequence[str]) -> int:
    """Prints the comparison; returns 0 if they agree, 1 if they differ, 2 if they cannot be compared."""
    arguments = _parser().parse_args(list(argv))
    try:
        return _verify(arguments)
    except (QuireError, ValueError) as error:
        sys.stderr.write(f"quire verify: {error}\n")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="quire verify",
        description="Runs a prompt here and in Transformers and compares what every layer gives, the logits "
        "and greedy tokens. Exit code: 0 they agree, 1 they differ, 2 they cannot be compared. A quantized "
        "checkpoint is compared with Transformers on the same weights made floats again (of a GGUF file by "
        "Transformers itself), so a difference is one of computing, not of rounding weights; with "
        "--reference, with another checkpoint.",
    )
    add = parser.add_argument
    add("model", help="folder of a checkpoint, a GGUF file, or a hub name")
    add("--reference", help="another checkpoint that Transformers runs instead of the same one")
    add("--dtype", default="float32", help="type of our weights and activations")
    add("--reference-dtype", default="float32", help="type in Transformers")
    add("--quantization", "-q", help="fewer bits made of our weights, as for serve")
    add("--activation-bits", type=int, help="8 or 16, of inputs of ours, as for serve")
    add("--model-impl", default="auto", choices=("auto", "vllm", "quire", "transformers"))
    add("--prompt", help="text of the prompt; default: random token ids, always the same")
    add("--prompt-ids", help="token ids of the prompt, as a JSON list")
    add("--num-tokens", type=int, default=8, help="greedy tokens that are compared")
    add("--tolerance", type=float, help=f"largest relative difference; default: {_EXACT} where "
        f"both sides are float32 with the same weights, else {_ROUNDED}")  # fmt: skip
    add("--hf-overrides", type=json.loads, default={}, help="JSON object over config.json")
    add("--trust-remote-code", action="store_true", help="allow Python code from the checkpoint")
    return parser


def _verify(arguments: argparse.Namespace) -> int:
    from quire.bench.verify import compare
    from quire.bench.verify_sides import Ours, Theirs

    ids = _given_ids(arguments)
    room = _PROMPT_TOKENS if ids is None else len(ids)
    ours = Ours(
        arguments.model,
        max_len=room + arguments.num_tokens + 1,
        dtype=arguments.dtype,
        quantization=arguments.quantization,
        activation_bits=arguments.activation_bits,
        model_impl=arguments.model_impl,
        trust_remote_code=arguments.trust_remote_code,
        hf_overrides=arguments.hf_overrides,
    )
    if ids is None:
        draw = random.Random(_SEED)
        ids = [draw.randrange(ours.description.spec.vocab_size) for _ in range(_PROMPT_TOKENS)]
    method = ours.description.quantization
    theirs = Theirs(
        arguments.reference or ours.settings.model.model,
        dtype=arguments.reference_dtype,
        config=ours.description.hf_config,
        is_quantized=arguments.reference is None and method not in (None, "gguf"),
        trust_remote_code=arguments.trust_remote_code,
    )
    is_exact = ours.dtype == arguments.reference_dtype == "float32"
    is_exact = is_exact and arguments.quantization is None and method is None
    tolerance = arguments.tolerance or (_EXACT if is_exact else _ROUNDED)
    found = compare(ours, theirs, ids, num_tokens=arguments.num_tokens, tolerance=tolerance)
    sys.stdout.write("\n".join(_report(arguments, ours, theirs, found, len(ids))) + "\n")
    return 0 if found.is_same else 1


def _given_ids(arguments: argparse.Namespace) -> list[int] | None:
    """The ids of the prompt that was given; None if none was."""
    if arguments.prompt_ids is not None:
        ids: Any = json.loads(arguments.prompt_ids)
        if not isinstance(ids, list) or not ids or not all(isinstance(one, int) for one in ids):
            raise ValueError("--prompt-ids must be a JSON list of token ids, such as [1, 2, 3]")
        return ids
    if arguments.prompt is None:
        return None
    from quire.frontend.tokenizer import Tokenizer

    return Tokenizer.load(arguments.model).encode(arguments.prompt)


def _report(
    arguments: argparse.Namespace, ours: Ours, theirs: Theirs, found: Comparison, num_ids: int
) -> list[str]:
    description = ours.description
    weights = arguments.quantization or description.quantization or "plain weights"
    source = "its description" if description.spec.program is None else "Transformers' code"
    lines = [
        f"ours       {description.architecture} from {source}, {ours.dtype}, {weights}",
        f"reference  Transformers {theirs.version}, {arguments.reference_dtype}, {theirs.how}",
        f"prompt     {num_ids} tokens",
        "",
    ]
    if description.spec.program is not None:
        lines.append("What single layers give is not seen where Transformers' code runs here.")
    width = max(len(one.name) for one in found.lines)
    lines.append(f"{'':{width}}  {'largest':>9}  {'relative':>9}")
    lines += [
        f"{one.name:{width}}  {one.largest:9.2e}  {one.relative:9.2e}"
        + ("" if one.relative <= found.tolerance else "  beyond the tolerance")
        for one in found.lines
    ]
    same = sum(one == other for one, other in zip(found.ours, found.theirs, strict=True))
    lines.append(f"greedy tokens: {same} of {len(found.ours)} the same")
    if found.num_same < len(found.ours):
        at = found.num_same
        lines.append(
            f"the first other one is token {at}: {found.ours[at]} here, {found.theirs[at]} there"
        )
    first = found.first
    if first is not None:
        lines.append(
            f"DIFFERENT: first in {first.name}, by {first.relative:.2e} where {found.tolerance:g} is allowed"
        )
    elif not found.tokens_agree:
        lines.append(f"DIFFERENT: in greedy tokens, against a margin of {found.margin:.2e}")
    else:
        lines.append(f"the same within {found.tolerance:g}")
    return lines
