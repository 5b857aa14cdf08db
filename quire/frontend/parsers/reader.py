"""The reader of one choice's output: reasoning first, then content and calls of tools.

How calls look is `parsers.tools`, how reasoning looks `parsers.reasoning`, both by name in `parsers.registry`.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from quire.frontend.parsers.classes import ClassTools
from quire.frontend.parsers.counting import ReasoningCount
from quire.frontend.parsers.formats import Split, ThinkFormat, ToolFormat
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.places import SpecialPlaces
from quire.frontend.parsers.prompts import ends_inside
from quire.frontend.parsers.registry import think_format, tool_format
from quire.frontend.parsers.schemas import ToolSchemas
from quire.frontend.parsers.source import Source, Step, Tags
from quire.frontend.tokenizer import Tokenizer
from quire.protocol.message import MessageDelta, ReadOptions

_REQUIRED = JsonCalls(openings="[{")  # what the grammar of tool_choice "required" lets through


def make_reader(
    reasoning: str | None,
    tools: str | None,
    options: ReadOptions,
    tokenizer: Tokenizer | None,
    *,
    make_id: MakeId | None = None,
) -> Reader:
    """A reader for one choice of one request.

    reasoning, tools  names of formats, None for none.
    tokenizer  tells special tokens, and whether the prompt ends inside the reasoning.
    make_id    the id of a call from its tool's name and its number; None for the format's own way.
    Raises SettingsError for an unknown name.
    """
    think = think_format(reasoning) if reasoning else None
    form: ToolFormat | None = None
    if options.tool_choice == "required":
        form = _REQUIRED
    elif options.tool_choice == "auto" and tools:
        form = tool_format(tools)
        if isinstance(form, ClassTools):
            form = form.bound(options, tokenizer)
    return Reader(think, form, options, tokenizer, make_id)


class Reader:
    """A `MessageReader`.

    needs_special_tokens  the text that is fed must show special tokens; those that belong to no format
                          are left out of the message.
    """

    def __init__(
        self,
        think: ThinkFormat | None,
        form: ToolFormat | None,
        options: ReadOptions,
        tokenizer: Tokenizer | None,
        make_id: MakeId | None,
    ) -> None:
        think, self._inside = _thinking(think, options, tokenizer)
        if think is not None and form is None:
            form = think.whole
        self._think = think
        self._form = form
        self._options = options
        self._tokenizer = tokenizer
        self._named = options.named_tool if options.tool_choice == "named" else None
        self._marks = _marks(think, form, tokenizer)
        self.needs_special_tokens = self._marks.needs_special_tokens
        self._places: SpecialPlaces | None = None
        if tokenizer is not None and self.needs_special_tokens:
            self._places = SpecialPlaces(tokenizer, options.prompt_token_ids)
        self._source = Source(self._places)
        self._message = Message(
            tools=ToolSchemas(options.tools if form else None),
            make_id=make_id or (form.make_id if form else long_id),
            holds_space=form is not None,
            may_reason=think is not None,
            parallel=options.parallel_tool_calls,
        )
        self._count = ReasoningCount(
            think, self._marks.reasoning_ends, tokenizer, inside=self._inside
        )
        self._steps: Generator[None, None, None] | None = self._read()

    def feed(self, text: str, token_ids: Sequence[int]) -> MessageDelta:
        """Takes the next piece. See `MessageReader`."""
        if self._places is not None:
            self._places.add(text, token_ids)
        if text and self._steps is not None:
            self._source.put(text)
            next(self._steps, None)
        delta = self._message.taken()
        if self._think is not None:
            self._count.add(token_ids, len(delta.reasoning), len(text))
        return delta

    def finish(self) -> MessageDelta:
        """What was held back. See `MessageReader`."""
        self._source.ended = True
        if self._steps is not None:
            next(self._steps, None)
            self._steps = None
        self._message.end()
        return self._message.taken()

    @property
    def num_reasoning_tokens(self) -> int:
        """Ids fed so far that belong to the reasoning, without its tags."""
        return self._count.total

    def _read(self) -> Step[None]:
        think = self._think
        if think is not None and think.split is not None:
            yield from self._split(think.split)
        if think is not None and self._inside and think.opening:
            self._message.say(think.opening)
        elif self._inside:
            yield from self._reasoning(begins=True)
        if self._named is not None:
            yield from self._named_call(self._named)
        while (yield from self._part()):
            pass

    def _split(self, split: Split) -> Step[None]:
        """Waits for the whole output and goes on with what is not reasoning."""
        source, pieces = self._source, []
        while (yield from source.more()):
            pieces.append(source.take(len(source.text)))
        reasoning, content = split("".join(pieces), self._options, self._tokenizer)
        self._message.reason(reasoning)
        source.put(content)

    def _part(self) -> Step[bool]:
        """Content up to the next call or reasoning, and that; False at the end."""
        form, message = self._form, self._message
        if form is not None and form.openings and not message.has_content:
            message.say((yield from self._source.space()))
            if (yield from self._source.one_of(self._marks.starts)):
                yield from self._reasoning(begins=False)
                return True
            sign = yield from self._source.character()
            if sign and sign in form.openings:
                yield from self._calls(form, "")
                return True
        tag = yield from self._source.until(self._marks.content, message.say)
        if form is not None and tag in form.tags:
            yield from self._calls(form, tag)
        elif self._think is not None and tag in self._think.starts:
            if message.has_content and not self._think.again:
                message.say(tag)
            else:
                yield from self._reasoning(begins=False)
        return bool(tag)

    def _calls(self, form: ToolFormat, tag: str) -> Step[None]:
        self._source.mark(tag)
        is_call = yield from form.read(self._source, self._message, tag)
        left = self._source.marked()
        if not is_call:
            self._message.say(left)

    def _reasoning(self, *, begins: bool) -> Step[None]:
        """Reasoning up to its end. With `begins`, a tag that opens it may be there or not."""
        source, message, form = self._source, self._message, self._form
        message.begin_reasoning()
        if begins:
            space = yield from source.space()
            if not (yield from source.one_of(self._marks.starts)):
                message.reason(space)
        while True:
            tag = yield from source.until(self._marks.reasoning, message.reason)
            if form is not None and tag in form.tags and tag in self._marks.reasoning_ends:
                yield from self._calls(form, tag)
                return
            if not tag or tag in self._marks.reasoning_ends:
                return

    def _named_call(self, name: str) -> Step[None]:
        """All that follows is the arguments of one tool."""
        source, message = self._source, self._message
        yield from source.space()
        if not self._inside and (yield from source.one_of(self._marks.starts)):
            yield from self._reasoning(begins=False)
            yield from source.space()
        if (yield from source.more()):
            message.call(name)
        while (yield from source.until(self._marks.dropped, message.argue)):
            pass


@dataclass(frozen=True)
class _Marks:
    """What is looked for in content, in reasoning, and in arguments that are the whole output."""

    content: Tags
    reasoning: Tags
    starts: Tags
    dropped: Tags
    reasoning_ends: frozenset[str]
    needs_special_tokens: bool


@lru_cache(maxsize=64)
def _marks(
    think: ThinkFormat | None, form: ToolFormat | None, tokenizer: Tokenizer | None
) -> _Marks:
    special: frozenset[str] = frozenset()
    if tokenizer is not None:
        special = frozenset(tokenizer.convert_ids_to_tokens(tokenizer.all_special_ids))
    starts = frozenset(think.starts if think else ())
    ends = frozenset(think.ends if think else ())
    calls = frozenset(form.tags if form else ())
    drops = frozenset((think.drops if think else ()) + (form.drops if form else ()))
    needs_special = bool(
        (form and form.needs_special_tokens)
        or (think and think.needs_special_tokens)
        or any(text.strip() in special for text in starts | ends | calls)
    )
    if not needs_special:
        special = frozenset()
    if think is not None and think.calls_end_it:
        ends |= calls
    return _Marks(
        content=Tags(calls | starts | drops | special),
        reasoning=Tags(ends | special),
        starts=Tags(starts),
        dropped=Tags(special),
        reasoning_ends=ends,
        needs_special_tokens=needs_special,
    )


def _thinking(
    think: ThinkFormat | None, options: ReadOptions, tokenizer: Tokenizer | None
) -> tuple[ThinkFormat | None, bool]:
    """How an output reasons, if at all, and whether it begins inside the reasoning.

    The prompt decides where it tells, else the template's variables, else the format.
    """
    if think is None:
        return None, False
    found = ends_inside(think, options.prompt_token_ids, tokenizer)
    names = [name for name in think.switches if name in options.template_kwargs]
    thinks = any(options.template_kwargs[name] for name in names) if names else think.thinks
    if not (found or thinks):
        return None, False
    if found is None:
        is_known = tokenizer is not None and bool(options.prompt_token_ids)
        found = think.inside and not (is_known and think.may_skip)
    return think, found
