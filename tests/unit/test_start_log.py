"""The lines at start: what they say, and where they go in programs with and without a log of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from quire import LLM
from quire.config.schema import Settings
from quire.metrics.start_log import capacity_lines
from tests import checkpoints
from tests.unit.fake_engine import INFO, FakeClient

LEDGER = [
    ("KV cache", 3 << 29, ""),
    ("total", 2 << 30, "never exceeded"),
    ("free", 8 << 30, "at start"),
]
WRITES = """
import logging
from quire.metrics.start_log import set_up_log_of_library
{before}
set_up_log_of_library()
set_up_log_of_library()
{after}
logging.getLogger("quire.llm").info("shown once")
"""


def test_lines_give_the_ledger_and_the_capacity() -> None:
    info = msgspec.structs.replace(INFO, ledger=LEDGER, capacity_tokens=524_288, max_model_len=8192)
    assert capacity_lines(info) == [
        "memory: KV cache                      1.500 GiB",
        "memory: total                         2.000 GiB  never exceeded",
        "memory: free                          8.000 GiB  at start",
        "GPU KV cache size: 524,288 tokens",
        "Maximum concurrency for 8,192 tokens per request: 64.00x",
    ]


@pytest.mark.parametrize("level", ["INFO", "WARNING"])
def test_llm_writes_them_at_info(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    checkpoints.write_tokenizer(tmp_path)

    def make(settings: Settings, *, own_process: bool) -> FakeClient:
        return FakeClient(settings, str(tmp_path))

    monkeypatch.setattr("quire.llm_engine.make_client", make)
    with caplog.at_level(level, logger="quire"):
        LLM("model").close()
    lines = [record.getMessage() for record in caplog.records if record.name == "quire.llm"]
    assert lines == (capacity_lines(INFO) if level == "INFO" else [])


@pytest.mark.parametrize(
    ("before", "after", "variables", "expected"),
    [
        ("", "", {}, "INFO quire.llm: shown once\n"),
        ("", "logging.basicConfig(level='INFO')", {}, "INFO quire.llm: shown once\n"),
        ("", "", {"QUIRE_LOG_LEVEL": "warning"}, ""),
        ("", "", {"VLLM_LOGGING_LEVEL": "error"}, ""),
        ("logging.basicConfig(level='INFO', format='own %(message)s')", "", {}, "own shown once\n"),
        ("logging.basicConfig()", "", {}, ""),
        ("logging.getLogger('quire').addHandler(logging.NullHandler())", "", {}, ""),
    ],
)
def test_a_program_without_a_log_sees_the_lines_and_another_keeps_its_own(
    before: str, after: str, variables: dict[str, str], expected: str
) -> None:
    kept = {
        name: text
        for name, text in os.environ.items()
        if name not in ("QUIRE_LOG_LEVEL", "VLLM_LOGGING_LEVEL")
    }
    done = subprocess.run(
        [sys.executable, "-c", WRITES.format(before=before, after=after)],
        capture_output=True, text=True, env=kept | variables, check=True,
    )  # fmt: skip
    assert done.stderr == expected
