"""OpenAI's harmony: a message is a header, `<|message|>`, a body and a token that ends it.

The channel in the header says what the body is: analysis is reasoning, a recipient makes it a call, all
else is content. `parsers.tools.openai` and `parsers.reasoning.openai_gptoss` give it its names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from quire.frontend.parsers.message import MakeId, Message, long_id
from quire.frontend.parsers.source import Source, Step, Tags

_MAX_HEADER = 512
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_TAGS = ("<|channel|>", "<|start|>")
_HEADER_ENDS = Tags(("<|message|>", *_ENDS, *_TAGS))
_BODY_ENDS = Tags((*_ENDS, *_TAGS))
_RECIPIENT = re.compile(r"to=(?:functions\.)?([^\s<]{1,256})")
_HEADER_BREAK = re.compile(r"[\s<]")


@dataclass(frozen=True, kw_only=True)
class Harmony:
    """A `ToolFormat` that reads whole messages, their reasoning too.

    calls  whether a body with a recipient is a call; otherwise it is content.
    """

    calls: bool = True
    tags: tuple[str, ...] = _TAGS
    openings: str = ""
    drops: tuple[str, ...] = _ENDS
    needs_special_tokens: bool = True
    make_id: MakeId = long_id

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """Reads messages up to the end, or to one without a header; see `ToolFormat`."""
        while tag:
            header = ""
            if tag == "<|start|>":
                header, tag = yield from source.short(_HEADER_ENDS, _MAX_HEADER)
            if tag == "<|channel|>":
                inside, tag = yield from source.short(_HEADER_ENDS, _MAX_HEADER)
                header = f"{inside} {header}"
            if tag in _TAGS:
                source.give_back(tag)
                return False
            if tag != "<|message|>":
                return tag != ""
            source.mark()
            tag = yield from self._body(source, message, header)
        return True

    def _body(self, source: Source, message: Message, header: str) -> Step[str]:
        """One body. The tag of the next message, or ""."""
        channel = _HEADER_BREAK.split(header.strip(), maxsplit=1)[0]
        recipient = _RECIPIENT.search(header)
        write = message.reason if channel == "analysis" else message.say
        if recipient is not None and self.calls:
            message.call(recipient.group(1))
            write = message.argue
        end = yield from source.until(_BODY_ENDS, write)
        source.mark()
        return end if end in self.tags else ""
