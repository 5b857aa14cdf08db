"""Each program of docs/clients/ is the file that it names, runs, and prints what the page says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import torch
import transformers

from quire.config.demo import FOLDER
from tests.clients import pages
from tests.e2e.served import ROOT, Served, served

SHOWN = pages.all_shown()
OWN = [one for one in SHOWN if one.printed is not None and one.name not in pages.OTHERS]
OTHERS = [one for one in SHOWN if one.printed is not None and one.name in pages.OTHERS]
OPENAI = [one for one in OWN if one.name.startswith("openai_")]
Servers = dict[tuple[str, ...], Served]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with pages.servers() as found:
        yield found


def name_of(shown: pages.Shown) -> str:
    return shown.name


def need(package: str) -> Path:
    """The interpreter that has a package; skips with its name where none has."""
    if not pages.has_package(package):
        pytest.skip(f"{package} is not installed in {pages.other_python()}; `make clients` does it")
    return pages.other_python()


@pytest.mark.parametrize("shown", SHOWN, ids=name_of)
def test_a_page_shows_the_file(shown: pages.Shown) -> None:
    assert shown.text == (ROOT / shown.path).read_text(), "run `python -m tests.clients.pages`"


def test_every_program_is_on_one_page() -> None:
    files = [path for path in pages.PROGRAMS.rglob("*") if path.suffix in (".py", ".sh", ".toml")]
    assert sorted(one.path for one in SHOWN if not one.path.endswith(".yaml")) == sorted(
        path.relative_to(ROOT).as_posix() for path in files
    )


@pytest.mark.slow
@pytest.mark.parametrize("shown", OWN, ids=name_of)
def test_a_program_prints_what_its_page_says(shown: pages.Shown, servers: Servers) -> None:
    assert pages.run(shown.name, pages.server_of(shown.name, servers).url) == shown.printed


@pytest.mark.slow
@pytest.mark.parametrize("shown", OTHERS, ids=name_of)
def test_a_framework_prints_what_its_page_says(shown: pages.Shown, servers: Servers) -> None:
    need(pages.OTHERS[shown.name])
    assert pages.run(shown.name, servers[()].url) == shown.printed


@pytest.mark.slow
@pytest.mark.parametrize("shown", OPENAI, ids=name_of)
def test_the_client_that_frameworks_have(shown: pages.Shown, servers: Servers) -> None:
    """LiteLLM and LlamaIndex hold the official client back; the programs run with that one too."""
    python = need("openai")
    if shown.name == "openai_prompt_embeds.py":
        pytest.skip("it reads the checkpoint with torch, which is not installed there")
    url = pages.server_of(shown.name, servers).url
    assert pages.run(shown.name, url, python=python) == shown.printed


@pytest.mark.slow
def test_lm_eval(servers: Servers) -> None:
    need("lm_eval")
    table = pages.run("lm_eval.sh", servers[()].url)
    assert re.search(r"quire_capitals *\|.*acc *\|↑ *\| *1\|", table), table
    assert re.search(r"quire_capitals_chat *\|.*exact_match *\|↑ *\| *1\|", table), table


@pytest.mark.slow
def test_the_scores_of_lm_eval_are_those_of_transformers(tmp_path: Path) -> None:
    python = need("lm_eval")
    with served(tmp_path, *pages.WORDS, *pages.FLAGS["lm_eval.sh"], "--dtype", "float32") as server:
        model = f"model=quire-demo,base_url={server.url}/v1/completions,tokenizer_backend=remote"
        words = [python.parent / "lm_eval", "--model", "local-completions", "--model_args", model]
        words += ["--tasks", "quire_capitals", "--include_path", pages.PROGRAMS / "lm_eval_tasks"]
        words += ["--log_samples", "--output_path", tmp_path]
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=240)
        assert done.returncode == 0, done.stderr
    tokenizer = transformers.AutoTokenizer.from_pretrained(FOLDER)
    reference = transformers.AutoModelForCausalLM.from_pretrained(FOLDER, dtype=torch.float32)
    (samples,) = tmp_path.rglob("samples_*.jsonl")
    compared = 0
    for sample in map(json.loads, samples.read_text().splitlines()):
        for asked, (found,) in zip(sample["arguments"].values(), sample["resps"]):
            start = tokenizer.encode(asked["arg_0"], add_special_tokens=False)
            ids = tokenizer.encode(asked["arg_0"] + asked["arg_1"], add_special_tokens=False)
            with torch.no_grad():
                logprobs = reference(torch.tensor([ids])).logits[0].log_softmax(-1)
            places = range(len(start), len(ids))
            expected = sum(float(logprobs[place - 1, ids[place]]) for place in places)
            assert float(found[0]) == pytest.approx(expected, abs=1e-3)
            compared += 1
    assert compared == 32


def test_curl(servers: Servers) -> None:
    printed = pages.run("curl.sh", servers[()].url)
    whole, *pieces = printed.split("\n")
    assert '"content":"The capital of France is Paris."' in whole
    assert "data: [DONE]" in pieces and sum(one.startswith("data: {") for one in pieces) > 5
    assert r'"content":"{\"capital\": \"Paris\"}"' in printed
    assert '"type":"text","text":"The capital of France is Paris."' in printed
    assert '"tokens":[' in printed and "\n200\nvllm:generation_tokens_total{" in printed


def test_the_environment_of_claude_code(servers: Servers, tmp_path: Path) -> None:
    """A program in the place of `claude` asks with the client that reads the same environment."""
    fake = tmp_path / "claude"
    fake.write_text(
        f"#!{sys.executable}\n"
        "import os, anthropic\n"
        "assert 'ANTHROPIC_API_KEY' not in os.environ\n"
        "names = [key for key in os.environ if key.startswith('ANTHROPIC_') and 'MODEL' in key]\n"
        "client = anthropic.Anthropic()\n"
        "for name in sorted(names):\n"
        "    found = client.beta.messages.create(model=os.environ[name], max_tokens=64, betas=['x-1'],\n"
        "        messages=[{'role': 'user', 'content': 'What is the capital of France?'}],\n"
        "        extra_body={'temperature': 0})\n"
        "    print(name, found.content[0].text)\n"
    )
    fake.chmod(0o755)
    done = subprocess.run(
        [str(pages.PROGRAMS / "claude_code.sh")],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "URL": servers[()].url, "ANTHROPIC_API_KEY": "x"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 4 and all("The capital of France is Paris." in line for line in lines)


def test_the_settings_of_codex(servers: Servers) -> None:
    settings = tomllib.loads((pages.PROGRAMS / "codex.toml").read_text())
    provider = settings["model_providers"][settings["model_provider"]]
    assert provider["wire_api"] == "responses" and provider["env_key"].isupper()
    base = servers[()].url + urlsplit(provider["base_url"]).path
    answer = httpx.post(
        f"{base}/{provider['wire_api']}",
        json={"model": settings["model"], "input": "Hello!", "stream": True, "store": False},
        headers={"Authorization": "Bearer none"},
        timeout=60,
    )
    assert answer.status_code == 200 and "event: response.completed" in answer.text
