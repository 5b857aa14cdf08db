"""The programs that docs/clients/ shows, with what they print: `python -m tests.clients.pages` writes both anew.

A page names a program of examples/clients/ in a line of its own, and has its text in a block below; a line
"prints" and a second block may follow. What runs with other packages needs `make clients` first.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.served import ROOT, Served, served

PAGES = ROOT / "docs" / "clients"
PROGRAMS = ROOT / "examples" / "clients"
SHOWN = re.compile(
    r"(?P<head>^`(?P<path>examples/clients/\S+)`:\n\n```\w+\n)(?P<text>.*?)^```\n"
    r"(?:\nprints\n\n```text\n(?P<printed>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
WORDS = ("--threads", "1", "--kv-cache-memory-bytes", "64M", "--responses-store", "memory")
FLAGS = {
    "openai_prompt_embeds.py": ("--enable-prompt-embeds",),
    "openai_xlam_tools.py": ("--enable-auto-tool-choice", "--tool-call-parser", "xlam"),
    "lm_eval.sh": ("--enable-tokenizer-info-endpoint",),
}
"""What the server of a program is started with, besides WORDS."""
OTHERS = {
    "langchain_tools.py": "langchain_openai",
    "llama_index_tools.py": "llama_index.llms.openai_like",
    "litellm_tools.py": "litellm",
    "lm_eval.sh": "lm_eval",
}
"""Programs that need a package of `make clients`, and the package."""


@dataclass(frozen=True)
class Shown:
    """A program as a page shows it; `printed` is None where the page does not say."""

    page: Path
    path: str
    text: str
    printed: str | None

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.rpartition("/")[2]


def all_shown() -> list[Shown]:
    """Every program of every page."""
    return [
        Shown(page, one["path"], one["text"], one["printed"])
        for page in sorted(PAGES.glob("*.md"))
        for one in SHOWN.finditer(page.read_text())
    ]


def other_python() -> Path:
    """The interpreter of `make clients`; CLIENTS_PYTHON names another."""
    return Path(
        os.environ.get("CLIENTS_PYTHON", ROOT / ".venv-clients" / "bin" / "python")
    ).absolute()


def has_package(name: str) -> bool:
    """Whether a package of OTHERS is installed there."""
    python = other_python()
    if not python.exists():
        return False
    found = f"import importlib.util as u; raise SystemExit(u.find_spec({name!r}) is None)"
    return not subprocess.run([python, "-c", found], capture_output=True).returncode


def run(name: str, url: str, *, python: Path | None = None) -> str:
    """What a program of examples/clients/ prints; it must end well."""
    own = python or (other_python() if name in OTHERS else Path(sys.executable))
    has_v1 = name.endswith(".py") and not name.startswith("anthropic")
    command = [str(PROGRAMS / name), f"{url}/v1" if has_v1 else url]
    done = subprocess.run(
        [str(own), *command] if name.endswith(".py") else command,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        env=os.environ
        | {
            "PATH": f"{own.parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # nothing is fetched from other hosts
            "HF_HUB_OFFLINE": "1",
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def servers() -> Iterator[dict[tuple[str, ...], Served]]:
    """A server for each set of flags."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain"
        plain.mkdir()
        extra = [flags for name, flags in FLAGS.items() if name != "openai_xlam_tools.py"]
        joined = tuple(word for flags in extra for word in flags)
        with served(plain, *WORDS, "--batch-dir", str(plain / "batches"), *joined) as first:
            with served(Path(folder), *WORDS, *FLAGS["openai_xlam_tools.py"]) as second:
                yield {(): first, FLAGS["openai_xlam_tools.py"]: second}


def server_of(name: str, found: dict[tuple[str, ...], Served]) -> Served:
    """The server that a program talks to."""
    return found.get(FLAGS.get(name, ()), found[()])


def main() -> int:
    """Rewrites the blocks of all pages; what cannot be run here keeps what it printed last."""
    with servers() as found:

        def renewed(match: re.Match[str]) -> str:
            name = match["path"].rpartition("/")[2]
            block = f"{match['head']}{(ROOT / match['path']).read_text()}```\n"
            printed = match["printed"]
            if printed is None:
                return block
            if name not in OTHERS or has_package(OTHERS[name]):
                printed = run(name, server_of(name, found).url)
            return f"{block}\nprints\n\n```text\n{printed}```\n"

        for page in sorted(PAGES.glob("*.md")):
            page.write_text(SHOWN.sub(renewed, page.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
