"""The checks of tools/ find what they are for; that the tree passes them is `make check`."""

from __future__ import annotations

import ast

from tools.check_docs import check_docstrings, check_map, check_ops
from tools.check_sizes import FILE_CAPS, cap_of, check_file

PROVIDER = """
FOO = declare("foo", "pure", "{summary}")

@register
class Foo(Provider):
    op = "foo"
    name = "{name}"

    def run(self, x):
        \"\"\"Foo of x{shape}.\"\"\"
"""


def provider(
    summary: str = "run(x)", name: str = "reference", shape: str = ""
) -> dict[str, ast.Module]:
    text = PROVIDER.format(summary=summary, name=name, shape=shape)
    return {"quire/ops/foo.py": ast.parse(text)}


def test_long_files_and_functions_are_named() -> None:
    body = "def f():\n" + "    x = 1\n" * 60
    assert len(check_file("quire/layers/a.py", body)) == 1
    assert check_file("quire/layers/a.py", body[: -len("    x = 1\n")]) == []
    assert len(check_file("quire/layers/a.py", "x = 1\n" * 401)) == 1
    assert len(check_file("quire/utils/a.py", "x = 1\n" * 151)) == 1


def test_an_exception_that_is_not_needed_is_named() -> None:
    path = next(iter(FILE_CAPS))
    assert "can go" in check_file(path, "x = 1\n")[0]
    assert check_file(path, "x = 1\n" * cap_of(path)) == []


def test_missing_docstrings_are_named() -> None:
    bare = ast.parse("def public():\n    pass\ndef _own():\n    pass\nclass Thing:\n    pass\n")
    assert len(check_docstrings("a.py", bare)) == 3
    assert check_docstrings("a.py", ast.parse('"""A."""\ndef public():\n    """B."""\n')) == []


def test_operations_need_shapes_and_a_reference() -> None:
    assert "states no shapes" in check_ops(provider())[0]
    assert check_ops(provider(shape=", x [T, C]")) == []
    assert check_ops(provider(summary="run(x [T,C])")) == []
    assert "no reference" in check_ops(provider(summary="run(x [T,C])", name="cpu"))[0]


def test_the_map_must_match_the_tree() -> None:
    assert check_map("`quire/nowhere.py`", []) == [
        "docs/map.md: names quire/nowhere.py, which is not there"
    ]
    assert check_map("", ["quire/ops/norm.py"]) == ["docs/map.md: does not name quire/ops/"]
    assert check_map("`quire/ops/` and `quire/ops/*.py`", ["quire/ops/norm.py"]) == []
