"""Mistral: an array behind a token, or since version 11 a name and JSON behind each."""

from __future__ import annotations

from dataclasses import dataclass

from quire.frontend.parsers.formats import ToolFormat
from quire.frontend.parsers.headed_calls import HeadedCalls
from quire.frontend.parsers.json_calls import JsonCalls
from quire.frontend.parsers.message import MakeId, Message, short_id
from quire.frontend.parsers.source import Source, Step

_TAG = "[TOOL_CALLS]"


def _read_header(header: str) -> tuple[str, str]:
    """`name[ARGS]` or `name[CALL_ID]id[ARGS]`, and `name` of the first models of version 11."""
    name, _, call_id = header.strip().removesuffix("[ARGS]").partition("[CALL_ID]")
    name = name.strip()
    return (name, call_id.strip()) if not set(name) & set(" \n[]") else ("", "")


_ARRAY = JsonCalls(tags=(_TAG,), needs_special_tokens=True)
_HEADED = HeadedCalls(tags=(_TAG,), starts=(_TAG,), read_header=_read_header)


@dataclass(frozen=True)
class _Mistral:
    """Either, by what follows the token."""

    tags: tuple[str, ...] = (_TAG,)
    openings: str = ""
    drops: tuple[str, ...] = ()
    needs_special_tokens: bool = True
    make_id: MakeId = short_id

    def read(self, source: Source, message: Message, tag: str) -> Step[bool]:
        """See `ToolFormat`."""
        yield from source.space()
        if (yield from source.character()) in ("[", "{"):
            return (yield from _ARRAY.read(source, message, tag))
        return (yield from _HEADED.read(source, message, tag))


FORMATS: dict[str, ToolFormat] = {"mistral": _Mistral()}
