"""Structured outputs of random schemas: how many are accepted, whether every output is valid, what it costs.

Run as `python -m benchmarks.structured [--requests 1000]`: downloads the JSON-Schema-Test-Suite (with the
sources of PyPI's `jsonschema`) and a set of real-world schemas (with PyPI's `check-jsonschema`) into a
temporary folder, asks the demo model for documents at temperature 1, streamed and not, 16 at a time beside
16 requests without a constraint, and prints a table. Validity is the judgement of `jsonschema`. A model of
this size repeats itself for ever, so constrained requests carry a frequency penalty.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import regex
from jsonschema import _keywords, _legacy_keywords, _utils

from quire.async_llm import AsyncLLM
from quire.config.args import EngineArgs
from quire.config.demo import FOLDER
from quire.engine.grammar.compiler import Compiler
from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from quire.protocol.request import GrammarSpec

EOS = 2
PROMPTS = (
    "Tell me about a lake.",
    "The capital of France is",
    "List three things.",
    "Once upon a time",
)
DRAFTS = {
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
    "draft7": "http://json-schema.org/draft-07/schema#",
}
PENALTY = 0.5
"""For each time that a token was used before: a model of this size repeats itself for ever."""
CONSTRAINED_AT_ONCE = 16
NEIGHBOURS = 16


@dataclass(frozen=True)
class Schema:
    """One schema with the place it comes from: a draft's folder, or "real"."""

    source: str
    name: str
    schema: Any


@dataclass
class Answer:
    """What a request gave. error is the reason of a refusal."""

    text: str = ""
    token_ids: tuple[int, ...] = ()
    logprobs: list[str] = field(default_factory=list)
    finish_reason: str | None = None
    error: str | None = None


def download(package: str, folder: Path, *more: str) -> Path:
    """The archive of a package on PyPI."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder)]
    subprocess.run([*command, *more, package], check=True, stdout=subprocess.DEVNULL)
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime)


def suite(archive: Path) -> Iterator[Schema]:
    """Every schema of the test suite's two drafts."""
    with tarfile.open(archive) as opened:
        for member in opened.getmembers():
            parts = Path(member.name).parts
            source = next((draft for draft in DRAFTS if draft in parts), None)
            if source is None or "tests" not in parts or not member.name.endswith(".json"):
                continue
            file = opened.extractfile(member)
            assert file is not None
            for group in json.load(file):
                schema = group["schema"]
                if isinstance(schema, dict):
                    schema = {"$schema": DRAFTS[source], **schema}
                yield Schema(source, f"{Path(member.name).stem}: {group['description']}", schema)


def real_world(archive: Path) -> Iterator[Schema]:
    """The schemas of programs' settings that the package carries."""
    with zipfile.ZipFile(archive) as opened:
        for name in opened.namelist():
            if "builtin_schemas" in name and name.endswith(".json"):
                yield Schema("real", Path(name).stem, json.loads(opened.read(name)))


for _module in (_keywords, _legacy_keywords, _utils):
    _module.re = regex  # Python's own has no \p{...}, which the suite uses


def _multiple(_: Any, divisor: Any, number: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
    """`multipleOf` by exact arithmetic: the validator's own divides as floats, which long numbers overflow."""
    is_number = isinstance(number, (int, float)) and not isinstance(number, bool)
    if is_number and Fraction(repr(number)) % Fraction(repr(divisor)):
        yield jsonschema.ValidationError(f"{number!r} is not a multiple of {divisor!r}")


for _draft in (jsonschema.Draft7Validator, jsonschema.Draft202012Validator):
    _draft.VALIDATORS["multipleOf"] = _multiple


def is_valid(text: str, schema: Any) -> bool:
    """Whether a text is a document that the schema allows."""
    try:
        kind = jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)
        return bool(kind(schema).is_valid(json.loads(text)))
    except ValueError:
        return False


def is_beginning(ids: tuple[int, ...], schema: Any, compiler: Compiler) -> bool:
    """Whether a document that the schema allows may begin with these ids."""
    matcher = compiler.compile(GrammarSpec(kind="json", text=json.dumps(schema))).matcher()
    matcher.advance(list(ids))
    return True


async def ask(engine: AsyncLLM, number: int, prompt: str, params: SamplingParams) -> Answer:
    """One request, its pieces joined."""
    answer = Answer()
    try:
        async for output in engine.generate(prompt, params, f"r{number}"):
            one = output.outputs[0]
            is_delta = params.output_kind is RequestOutputKind.DELTA
            answer.text = answer.text + one.text if is_delta else one.text
            ids = tuple(one.token_ids)
            answer.token_ids = answer.token_ids + ids if is_delta else ids
            answer.logprobs += [str(position) for position in one.logprobs or ()]
            answer.finish_reason = one.finish_reason
            answer.error = output.error if one.finish_reason == "error" else None
    except InvalidRequestError as error:
        answer.error = str(error)
    return answer


def free(number: int) -> SamplingParams:
    """An unconstrained neighbour; there are as many different ones as run at once."""
    return SamplingParams(
        max_tokens=96, temperature=1.0, seed=number % NEIGHBOURS, logprobs=1, ignore_eos=True,
        output_kind=RequestOutputKind.DELTA,
    )  # fmt: skip


def bound(number: int, schema: Any, max_tokens: int) -> SamplingParams:
    """A constrained request; every second one is streamed."""
    kind = RequestOutputKind.DELTA if number % 2 else RequestOutputKind.FINAL_ONLY
    wanted = StructuredOutputsParams(json=json.dumps(schema))
    return SamplingParams(
        max_tokens=max_tokens, temperature=1.0, seed=number, output_kind=kind, structured_outputs=wanted,
        frequency_penalty=PENALTY,
    )  # fmt: skip


async def run(
    engine: AsyncLLM, chosen: list[Schema], max_tokens: int
) -> tuple[list[Answer], int, int]:
    """Answers in order, and of the neighbours: how many there were, how many differed from their solo runs."""
    solo = [await ask(engine, n, PROMPTS[n % 4], free(n)) for n in range(NEIGHBOURS)]
    counts = Counter[str]()
    done = asyncio.Event()

    async def neighbour(number: int) -> None:
        while not done.is_set():
            found = await ask(engine, number, PROMPTS[number % 4], free(number))
            same = (found.token_ids, found.logprobs) == (
                solo[number].token_ids,
                solo[number].logprobs,
            )
            counts["same" if same else "other"] += 1

    gate = asyncio.Semaphore(CONSTRAINED_AT_ONCE)

    async def one(number: int, schema: Any) -> Answer:
        async with gate:
            return await ask(engine, number, PROMPTS[number % 4], bound(number, schema, max_tokens))

    others = [asyncio.create_task(neighbour(number)) for number in range(NEIGHBOURS)]
    answers = await asyncio.gather(*(one(n, s.schema) for n, s in enumerate(chosen)))
    done.set()
    await asyncio.gather(*others)
    return list(answers), sum(counts.values()), counts["other"]


async def cost(engine: AsyncLLM, chosen: list[Schema], answers: list[Answer]) -> float:
    """Tokens per second of 32 constrained requests at a time, by those of 32 free ones as long."""
    picked = [n for n, answer in enumerate(answers) if answer.finish_reason == "stop"][:256]
    rates = {True: 0.0, False: 0.0}
    for _ in range(2):
        for constrained in (True, False):
            gate = asyncio.Semaphore(32)

            async def one(n: int, gate: asyncio.Semaphore, constrained: bool) -> int:
                count = len(answers[n].token_ids)
                how = bound(n, chosen[n].schema, count)
                if not constrained:
                    how.structured_outputs, how.ignore_eos = None, True
                async with gate:
                    return len((await ask(engine, n, PROMPTS[n % 4], how)).token_ids)

            started = time.perf_counter()
            counts = await asyncio.gather(*(one(n, gate, constrained) for n in picked))
            rate = sum(counts) / (time.perf_counter() - started)
            rates[constrained] = max(rates[constrained], rate)
    return rates[True] / rates[False]


def report(chosen: list[Schema], answers: list[Answer], compiler: Compiler) -> bool:
    """Prints a line for each source; whether every output was valid."""
    is_good = True
    reasons = Counter[str]()
    print(f"{'schemas of':<14}{'asked':>7}{'accepted':>10}{'valid':>8}{'length':>8}{'wrong':>7}")
    for source in [*DRAFTS, "real"]:
        rows = [(s, a) for s, a in zip(chosen, answers, strict=True) if s.source == source]
        accepted = [(s, a) for s, a in rows if a.error is None]
        reasons.update(" ".join((a.error or "").split()[:9]) for _, a in rows if a.error)
        ended = [(s, a) for s, a in accepted if a.finish_reason == "stop"]
        cut = [(s, a) for s, a in accepted if a.finish_reason == "length"]
        wrong = [(s, a) for s, a in ended if not is_valid(a.text, s.schema)]
        wrong += [(s, a) for s, a in cut if not is_beginning(a.token_ids, s.schema, compiler)]
        is_good = is_good and not wrong and len(ended) + len(cut) == len(accepted)
        print(
            f"{source:<14}{len(rows):>7}{len(accepted) / max(1, len(rows)):>10.1%}"
            f"{len(ended) - len(wrong):>8}{len(cut) / max(1, len(accepted)):>8.1%}{len(wrong):>7}"
        )
        for schema, answer in wrong[:8]:
            print(f"  WRONG {schema.name}: {answer.text[:120]!r} {json.dumps(schema.schema)[:300]}")
    for reason, count in reasons.most_common(12):
        print(f"  refused {count:>4}: {reason}")
    return is_good


async def measure(schemas: list[Schema], count: int, max_tokens: int) -> bool:
    """The whole table; whether it is as it must be."""
    rng = random.Random(0)
    chosen = [schema for schema in schemas if schema.source == "real"]
    drafts = [schema for schema in schemas if schema.source != "real"]
    chosen += rng.choices(drafts, k=max(0, count - len(chosen)))
    rng.shuffle(chosen)
    settings = EngineArgs(max_num_seqs=64).to_settings()
    engine = AsyncLLM.from_settings(settings)
    compiler = Compiler("guidance", Path(FOLDER) / "tokenizer.json", engine.info.vocab_size, (EOS,))
    try:
        started = time.perf_counter()
        answers, num_neighbours, num_other = await run(engine, chosen, max_tokens)
        took = time.perf_counter() - started
        is_good = report(chosen, answers, compiler) and num_other == 0
        print(f"neighbours: {num_neighbours}, of which {num_other} differ from their solo runs")
        print(f"{len(chosen)} requests in {took:.0f} s")
        ratio = await cost(engine, chosen, answers)
        print(f"throughput of constrained requests: {ratio:.0%} of free ones")
        return is_good
    finally:
        engine.shutdown()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--max-tokens", type=int, default=800)
    parser.add_argument("--suite", type=Path, help="a jsonschema-*.tar.gz; default: from PyPI")
    parser.add_argument("--real", type=Path, help="a check_jsonschema-*.whl; default: from PyPI")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        tests = given.suite or download("jsonschema", root, "--no-binary", "jsonschema")
        real = given.real or download("check-jsonschema", root, "--only-binary", ":all:")
        schemas = [*suite(tests), *real_world(real)]
    return 0 if asyncio.run(measure(schemas, given.requests, given.max_tokens)) else 1


if __name__ == "__main__":
    sys.exit(main())
