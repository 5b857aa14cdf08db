"""The sandbox in which chat templates run: plain data only, with bounds on time and memory.

Finding and compiling templates is `frontend.chat_template`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jinja2.ext
import jinja2.nodes as nodes
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_CHARS = 32 << 20
"""Longest text that a template may write, or make on the way."""
MAX_SECONDS = 2.0
"""Processor time that a template may take; waiting for other requests does not count."""
_MAX_WRITTEN = 4 * MAX_CHARS  # with what is written to a variable first, and so twice
_MAX_REPEATED = 1 << 20  # entries or characters that one `*` may make
_MAX_WIDTH = 10_000  # columns, entries or digits that an argument may ask for
_MAX_BITS = 1 << 12  # of a number that a product makes
_LOOK_EVERY = 64  # rounds of loops between two looks at the clock

_WIDE = re.compile(r"\d{5}|\*")  # in a format: a width that is a large number, or one to be read
_PADDING = frozenset({"center", "ljust", "rjust", "zfill", "expandtabs"})
_SIZED_FILTERS = (
    "center", "indent", "batch", "slice", "wordwrap", "truncate", "round", "tojson", "format",
)  # fmt: skip


class _Budget:
    """What one rendering may still use."""

    def __init__(self, seconds: float) -> None:
        self.deadline = time.thread_time() + seconds
        self.seconds = seconds
        self.rounds = 0
        self.written = 0

    def look(self) -> None:
        if time.thread_time() > self.deadline:
            raise SecurityError(f"it takes longer than {self.seconds:g} seconds")


_running = threading.local()


@contextmanager
def bounded(seconds: float = MAX_SECONDS) -> Iterator[None]:
    """While a template runs in this thread: its loops, macros and outputs are counted."""
    before = getattr(_running, "budget", None)
    _running.budget = _Budget(seconds)
    try:
        yield
    finally:
        _running.budget = before


def _tick(num_chars: int) -> None:
    """One round of a loop, or one use of a macro, that writes so many characters of its own."""
    budget: _Budget | None = getattr(_running, "budget", None)
    if budget is None:
        return
    budget.rounds += 1
    if budget.rounds % _LOOK_EVERY == 0:
        budget.look()
    _write(budget, num_chars)


def _count(value: Any) -> Any:
    """What `{{ }}` writes, counted."""
    budget: _Budget | None = getattr(_running, "budget", None)
    if budget is not None and isinstance(value, str):
        _write(budget, len(value))
    return value


def _write(budget: _Budget, num_chars: int) -> None:
    budget.written += num_chars
    if budget.written > _MAX_WRITTEN:
        raise SecurityError(f"it writes more than {MAX_CHARS} characters")


def _concat(parts: list[Any]) -> str:
    texts = [str(part) for part in parts]
    _refuse_long(sum(map(len, texts)))
    return "".join(texts)


def _refuse_long(size: int) -> None:
    if size > MAX_CHARS:
        raise SecurityError(f"it makes a text of more than {MAX_CHARS} characters")


def _refuse_wide(values: Any) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > _MAX_WIDTH:
            raise SecurityError(f"it asks for a width of more than {_MAX_WIDTH}")
        if isinstance(value, str) and len(value) > _MAX_WIDTH:
            raise SecurityError(f"it repeats a text of more than {_MAX_WIDTH} characters")


def _check_format(form: str, places: str, values: Any) -> None:
    """Refuses a format that may write far more than it is; `places` is what stands where a value goes."""
    if _WIDE.search(form):
        raise SecurityError("a format in it has a width that is too large")
    longest = max(
        (len(one) for one in values if isinstance(one, (str, list, tuple, dict))), default=0
    )
    _refuse_long(len(form) + form.count(places) * longest)


class _Generation(jinja2.ext.Extension):
    """`{% generation %}` marks what an assistant said for training; here its body is written as it is."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class Sandbox(ImmutableSandboxedEnvironment):
    """Sees plain data only, changes nothing, and neither runs nor grows without end."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    tick = staticmethod(_tick)
    concat_texts = staticmethod(_concat)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
            finalize=_count,
        )
        self.globals.pop("lipsum", None)

    def guard_filters(self) -> None:
        """Bounds the filters that can make much of little; call it when all filters are there."""
        for name in _SIZED_FILTERS:
            self.filters[name] = _narrow(self.filters[name], is_format=name == "format")
        self.filters["replace"] = _guarded_replace(self.filters["replace"])
        self.filters["join"] = _guarded_join(self.filters["join"])

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        repeated: Any = (nodes.For, nodes.Macro, nodes.CallBlock)
        for found in list(tree.find_all(repeated)):
            found.body.insert(0, _tick_of(found))
        for concat in list(tree.find_all(nodes.Concat)):
            parts = nodes.List(concat.nodes)
            called = nodes.EnvironmentAttribute("concat_texts")
            concat.nodes = [nodes.Call(called, [parts], [], None, None)]
        tree.set_environment(self)
        return tree

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operation whose result may be far larger than what goes in."""
        if operator == "**":
            raise SecurityError("it uses **")
        if operator == "+" and isinstance(left, (str, list, tuple)):
            _refuse_long(len(left) + (len(right) if isinstance(right, (str, list, tuple)) else 0))
        elif operator == "%" and isinstance(left, str):
            _check_format(left, "%", right if isinstance(right, tuple) else (right,))
        elif operator == "*":
            _check_product(left, right)
            _check_product(right, left)
        return super().call_binop(context, operator, left, right)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`format` of a text, with its result bounded; None for any other value."""
        inner = super().wrap_str_format(value)
        if inner is None:
            return None
        owner: str = value.__self__

        def bounded_format(*args: Any, **kwargs: Any) -> str:
            _check_format(owner, "{", _flat((*args, *kwargs.values())))
            return inner(*args, **kwargs)

        return bounded_format

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call from the template; methods of texts may not make them large."""
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str):
            name = getattr(__obj, "__name__", "")
            if name in _PADDING:
                _refuse_wide((*args, *kwargs.values()))
            elif name == "replace" and len(args) >= 2:
                _check_replace(owner, args[0], args[1])
            elif name == "join" and args:
                args = (_joinable(args[0], owner), *args[1:])
        return super().call(__context, __obj, *args, **kwargs)


def _flat(values: tuple[Any, ...]) -> list[Any]:
    """The values, and what stands in those that are mappings."""
    inner = [one for value in values if isinstance(value, dict) for one in value.values()]
    return [*values, *inner]


def _tick_of(found: Any) -> nodes.Node:
    own = sum(len(data.data) for data in found.find_all(nodes.TemplateData))
    call = nodes.Call(nodes.EnvironmentAttribute("tick"), [nodes.Const(own)], [], None, None)
    return nodes.ExprStmt(call).set_lineno(found.lineno)


def _check_product(many: Any, count: Any) -> None:
    if not isinstance(count, int):
        return
    if isinstance(many, (str, list, tuple)) and len(many) * count > _MAX_REPEATED:
        raise SecurityError("it repeats too much")
    if isinstance(many, int) and many.bit_length() + count.bit_length() > _MAX_BITS:
        raise SecurityError("it makes a number that is too large")


def _check_replace(text: str, old: Any, new: Any) -> None:
    if isinstance(old, str) and isinstance(new, str) and len(new) > len(old):
        _refuse_long(len(text) + text.count(old) * (len(new) - len(old)))


def _joinable(values: Any, between: Any) -> Any:
    """The values as a list, when joining them makes no text that is too long."""
    found = list(values)
    size = sum(len(one) if isinstance(one, str) else 1 for one in found)
    _refuse_long(size + len(found) * (len(between) if isinstance(between, str) else 0))
    return found


def _narrow(inner: Callable[..., Any], *, is_format: bool) -> Callable[..., Any]:
    first = 1 if getattr(inner, "jinja_pass_arg", None) is None else 2

    def narrow(*args: Any, **kwargs: Any) -> Any:
        if is_format:
            _check_format(str(args[0]), "%", (*args[1:], *kwargs.values()))
        else:
            _refuse_wide((*args[first:], *kwargs.values()))
        return inner(*args, **kwargs)

    return _like(inner, narrow)


def _guarded_replace(inner: Callable[..., Any]) -> Callable[..., Any]:
    def replace(context: Any, value: Any, old: Any, new: Any, count: Any = None) -> Any:
        _check_replace(str(value), old, new)
        return inner(context, value, old, new, count)

    return _like(inner, replace)


def _guarded_join(inner: Callable[..., Any]) -> Callable[..., Any]:
    def join(context: Any, value: Any, d: Any = "", attribute: Any = None) -> Any:
        return inner(context, _joinable(value, d), d, attribute)

    return _like(inner, join)


def _like(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    """Gives `outer` what jinja2 wants to know of a filter: which first argument it takes."""
    mark = getattr(inner, "jinja_pass_arg", None)
    if mark is not None:
        outer.jinja_pass_arg = mark  # type: ignore[attr-defined]
    return outer
