"""The messages between a front and an engine in its own process, as msgpack with a declared schema.

The sockets are `engine.client` and `engine.process`.
"""

from __future__ import annotations

import msgspec

from quire.protocol.outputs import EngineInfo, EngineOutputs
from quire.protocol.request import EngineRequest


class Add(msgspec.Struct, frozen=True, tag="add"):
    """Front to engine: take this request."""

    request: EngineRequest


class Abort(msgspec.Struct, frozen=True, tag="abort"):
    """Front to engine: end these sequences; `index` None ends all of a request."""

    request_id: str
    index: int | None = None


class Call(msgspec.Struct, frozen=True, tag="call"):
    """Front to engine: one of `engine.core.CALLS`, answered by a Reply with the same number."""

    number: int
    name: str


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Front to engine: finish now."""


class Phase(msgspec.Struct, frozen=True, tag="phase"):
    """Engine to front: what it is doing before it can serve; `percent` is -1 where none is known."""

    text: str
    percent: int = -1


class Ready(msgspec.Struct, frozen=True, tag="ready"):
    """Engine to front: it serves from now on."""

    info: EngineInfo


class Outputs(msgspec.Struct, frozen=True, tag="outputs"):
    """Engine to front: news of a step."""

    outputs: EngineOutputs


class Reply(msgspec.Struct, frozen=True, tag="reply"):
    """Engine to front: the answer to a Call."""

    number: int
    value: bool | int | float | str | None = None
    error: str | None = None


class Died(msgspec.Struct, frozen=True, tag="died"):
    """Engine to front: it cannot start or go on. `kind` is settings, load or internal."""

    error: str
    kind: str = "internal"


ToEngine = Add | Abort | Call | Stop
FromEngine = Phase | Ready | Outputs | Reply | Died

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
