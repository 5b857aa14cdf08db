"""What the package's own source may not contain: readers of code, asserts on input, slow patterns, open doors.

Advisories whose check is here: CVE-2024-9052, CVE-2024-11041, CVE-2024-9053, CVE-2025-24357, CVE-2025-32434,
CVE-2025-9141, CVE-2026-41523, CVE-2026-7301, CVE-2025-59425, CVE-2026-54232, CVE-2025-66448, CVE-2026-22807,
CVE-2026-27893, CVE-2026-90553.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "quire").rglob("*.py"))

BANNED_MODULES = {"pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}
BANNED_CALLS = {"eval", "exec", "compile", "__import__"}
BANNED_ATTRIBUTES = {
    ("torch", "load"), ("yaml", "load"), ("yaml", "unsafe_load"), ("yaml", "full_load"), ("os", "system"),
    ("os", "popen"), ("joblib", "load"), ("np", "load"), ("numpy", "load"),
}  # fmt: skip
ALLOWED = {
    ("quire/compat/vllm/modules.py", "exec"): "two lines of our own that stand in the file",
    ("quire/compat/vllm/modules.py", "compile"): "those two lines",
    (
        "quire/models/loading/pickled.py",
        "load",
    ): "torch's, of weights only, for who asks for such a file",
}
"""Calls that are meant, with the reason."""
WITH_ASSERTS = ("quire/engine", "quire/worker", "quire/ops", "quire/sampling", "quire/metrics")
"""Folders whose asserts state what the code itself keeps; no input of a request is judged there."""


def _trees() -> Iterator[tuple[str, ast.Module]]:
    for path in FILES:
        yield str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))


def _called(node: ast.Call) -> tuple[str, str]:
    """The name of what is called, behind the name that it is an attribute of."""
    if isinstance(node.func, ast.Name):
        return "", node.func.id
    if isinstance(node.func, ast.Attribute):
        holder = node.func.value
        return (holder.id if isinstance(holder, ast.Name) else "?"), node.func.attr
    return "", ""


def test_nothing_from_outside_becomes_code() -> None:
    found = []
    for path, tree in _trees():
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {one.name.partition(".")[0] for one in node.names}
                names.add((getattr(node, "module", "") or "").partition(".")[0])
                found += [f"{path}:{node.lineno} imports {one}" for one in names & BANNED_MODULES]
            if not isinstance(node, ast.Call):
                continue
            holder, name = _called(node)
            if (holder, name) == ("torch", "load") and not any(
                one.arg == "weights_only" and getattr(one.value, "value", False) is True
                for one in node.keywords
            ):
                found.append(f"{path}:{node.lineno} loads more than weights")
            if (path, name) in ALLOWED:
                continue
            if (not holder and name in BANNED_CALLS) or (holder, name) in BANNED_ATTRIBUTES:
                found.append(f"{path}:{node.lineno} calls {holder}.{name}")
            for given in node.keywords:
                if given.arg == "shell" and getattr(given.value, "value", False):
                    found.append(f"{path}:{node.lineno} runs a shell")
                if given.arg == "allow_pickle" and getattr(given.value, "value", True):
                    found.append(f"{path}:{node.lineno} allows pickles")
    assert found == []


def _narrows(test: ast.expr) -> bool:
    """Whether a condition only tells the type checker what is known: is not None, isinstance."""
    if isinstance(test, ast.UnaryOp):
        return _narrows(test.operand)
    if isinstance(test, ast.BoolOp):
        return all(_narrows(one) for one in test.values)
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], (ast.Is, ast.IsNot))
    return isinstance(test, ast.Call) and _called(test)[1] == "isinstance"


def test_no_assert_guards_what_comes_in() -> None:
    """`python -O` takes asserts out, so that none may decide about input, paths, keys or types."""
    found = []
    for path, tree in _trees():
        if path.startswith(WITH_ASSERTS):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert) and not _narrows(node.test):
                message = getattr(node.msg, "value", None)
                found.append(f"{path}:{node.lineno} {message}")
    meant = [one for one in found if "two settings are called" in one or "are made unique" in one]
    meant += [one for one in found if one.endswith(" None") and "/config/" in one]
    assert [one for one in found if one not in meant] == []


SCANNING = {"search", "sub", "subn", "finditer", "findall", "split"}


def _patterns() -> set[tuple[str, bool]]:
    """Every constant pattern, and whether it is looked for anywhere in a text, not only at one place."""
    found = set()
    for _, tree in _trees():
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        scanning = {_called(call)[0] for call in calls if _called(call)[1] in SCANNING}
        names = {
            id(node.value): target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for call in calls:
            holder, name = _called(call)
            if holder == "re" and call.args and isinstance(call.args[0], ast.Constant):
                scans = name in SCANNING or names.get(id(call)) in scanning
                found.add((str(call.args[0].value), scans))
    return found


HOSTILE = (
    "a",
    "0",
    "9.",
    " ",
    "\t,",
    "/a",
    "../",
    "x-",
    "\\",
    '"',
    "=",
    "[A(A=",
    "{{",
    "0x1",
    "é",
    "<a",
    "://",
)


def test_no_pattern_backtracks() -> None:
    """CVE-2025-48887: 100 kB made for the worst of them take each less than a tenth of a second."""
    patterns = _patterns()
    assert len(patterns) > 20 and any(scans for _, scans in patterns)
    for text, scans in sorted(patterns):
        pattern = re.compile(text)
        for unit in HOSTILE:
            hostile = unit * (100_000 // len(unit)) + "!"
            least = 1.0
            for _ in range(3):
                begun_s = time.process_time()
                pattern.search(hostile) if scans else pattern.match(hostile)
                least = min(least, time.process_time() - begun_s)
                if least < 0.1:
                    break
            assert least < 0.1, (text, unit, least)


def test_keys_are_compared_in_constant_time() -> None:
    """CVE-2025-59425: digests of equal length, by compare_digest, and every key of the list."""
    source = (ROOT / "quire/server/guard.py").read_text()
    tree = ast.parse(source)
    calls = [_called(node)[1] for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert "compare_digest" in calls and "sha256" in calls
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare) and any(
            isinstance(one, (ast.Eq, ast.In)) for one in node.ops
        ):
            names = {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            assert not names & {"key", "keys", "digest", "digests"}, ast.unparse(node)


def test_packages_come_from_one_index() -> None:
    """CVE-2026-54232: no second index beside the first, where a name could be taken by somebody else."""
    places = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "setup.py"]
    places += [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("Dockerfile*"), ROOT / ".ci" / "run"]
    for path in places:
        assert "--extra-index-url" not in path.read_text(encoding="utf-8"), path


EVIL = """\
from pathlib import Path
Path({marker!r}).touch()
class Cfg: pass
class Model: pass
class Tok: pass
"""
PLACES = (
    "config.json",
    "inner",
    "tokenizer_config.json",
    "processor_config.json",
    "generation_config.json",
)


@pytest.mark.parametrize("optimize", ["", "2"], ids=["plain", "OO"])
def test_code_in_a_checkpoint_never_runs(
    checkpoint: Callable[..., Path], tmp_path: Path, optimize: str
) -> None:
    """CVE-2025-66448 and its like: auto_map in five places, each with a file that leaves a mark."""
    folders = []
    for place in PLACES:
        folder = tmp_path / place.partition(".")[0]
        shutil.copytree(checkpoint("llama"), folder)
        marker = folder / "marker"
        (folder / "evil.py").write_text(EVIL.format(marker=str(marker)))
        names = {
            "AutoConfig": "evil.Cfg",
            "AutoModelForCausalLM": "evil.Model",
            "AutoTokenizer": ["evil.Tok", None],
        }
        path = folder / ("config.json" if place == "inner" else place)
        config = json.loads(path.read_text()) if path.exists() else {}
        if place == "inner":
            config["vision_config"] = {"auto_map": names}
        else:
            config["auto_map"] = names
            config["tokenizer_class"] = config.get("tokenizer_class", "PreTrainedTokenizerFast")
        path.write_text(json.dumps(config))
        folders.append(folder)
    code = (
        "import sys\nfrom quire import LLM, SamplingParams\n"
        "for folder in sys.argv[1:]:\n"
        "    try:\n"
        "        llm = LLM(folder, max_model_len=64, use_tqdm_on_load=False)\n"
        "        llm.generate('a', SamplingParams(max_tokens=1), use_tqdm=False)\n"
        "    except ValueError as error:\n"
        "        print(type(error).__name__, error)\n"
        "    if 'evil' in sys.modules or any(name.startswith('transformers_modules') for name in sys.modules):\n"
        "        sys.exit('code of the checkpoint was imported')\n"
        "print('done')\n"
    )
    environment = os.environ | ({"PYTHONOPTIMIZE": optimize} if optimize else {})
    ran = subprocess.run(
        [sys.executable, "-c", code, *map(str, folders)],
        capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200,
    )  # fmt: skip
    assert ran.returncode == 0 and ran.stdout.endswith("done\n"), ran.stdout + ran.stderr[-3000:]
    assert not list(tmp_path.rglob("marker"))


def test_a_checkpoint_of_pickles_only_is_refused(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """CVE-2025-24357, CVE-2025-32434: weights in .bin or .pt end the start with 2, and are not read."""
    marker = tmp_path / "marker"
    for name in ("pytorch_model.bin", "model.pt", "consolidated.00.pth"):
        folder = tmp_path / name.partition(".")[0]
        shutil.copytree(checkpoint("llama"), folder)
        for one in folder.glob("*.safetensors*"):
            one.unlink()
        command = f"cposix\nsystem\n(S'touch {marker}'\ntR.".encode()
        (folder / name).write_bytes(command)
        ran = subprocess.run(
            [sys.executable, "-m", "quire", "serve", str(folder), "--port", "0"],
            capture_output=True, text=True, cwd=ROOT, timeout=100,
        )  # fmt: skip
        assert ran.returncode == 2, ran.stderr[-2000:]
        assert name in ran.stderr and "Traceback" not in ran.stderr
    assert not marker.exists()
