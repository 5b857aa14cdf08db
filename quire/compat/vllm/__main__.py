"""`python -m quire.compat.vllm SCRIPT [ARGUMENTS]`: runs a program written against vLLM on Quire.

Also `-m MODULE [ARGUMENTS]`, such as -m vllm.entrypoints.openai.api_server. Nothing is installed or
changed; processes that the program starts see Quire as `vllm` too.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from quire.compat.vllm.modules import present
from quire.config import env

SHIM = Path(__file__).parents[1] / "shim"
_USAGE = (
    "usage: python -m quire.compat.vllm SCRIPT.py [ARGUMENTS]\n"
    "       python -m quire.compat.vllm -m MODULE [ARGUMENTS]"
)


def main(arguments: list[str]) -> int:
    """Runs the program in this process; returns 2 for wrong arguments, else the program decides."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if arguments else 2
    is_module = arguments[0] == "-m"
    words = arguments[1:] if is_module else arguments
    if not words or (not is_module and words[0].startswith("-")):
        print(_USAGE, file=sys.stderr)
        return 2
    present()
    env.add_python_path(str(SHIM))
    sys.path.insert(
        1, str(SHIM)
    )  # children that are spawned get this list in place of the variable
    sys.argv = words
    if is_module:
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        return 0
    script = Path(words[0])
    if not script.is_file():
        print(f"quire.compat.vllm: there is no file {words[0]}", file=sys.stderr)
        return 2
    sys.path[0] = str(script.resolve().parent)
    env.add_python_path(
        sys.path[0]
    )  # modules beside the program, for an engine of its own process too
    runpy.run_path(str(script), run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
