"""The wire forms of embeddings, pooling, classes, scores and ranks, with the checks that need no model.

What is asked of the engine is made in `server.pooled`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from quire.protocol.errors import NotServedError
from quire.protocol.params import PoolingParams
from quire.server.schema.sampling import MAX_NAME, kind_of, refuse, short

MAX_INPUTS = 2048
"""Texts of one request."""


class PoolingFields(msgspec.Struct, kw_only=True):
    """What all of these requests know; null fields are left out before."""

    model: str | None = None
    user: str | None = None
    use_activation: bool | None = None
    normalize: Any = None
    softmax: bool | None = None
    activation: bool | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: str | None = None
    request_id: str | None = None
    priority: int = 0
    cache_salt: str | None = None
    mm_processor_kwargs: Any = None


class InputFields(PoolingFields, kw_only=True):
    """A request over texts, token ids, or a conversation."""

    input: Any = None
    messages: Any = None
    add_special_tokens: bool | None = None
    add_generation_prompt: bool = False
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: Any = None
    media_io_kwargs: Any = None


class ClassifyRequest(InputFields, kw_only=True):
    """POST /classify."""


class EmbeddingRequest(InputFields, kw_only=True):
    """POST /v1/embeddings."""

    encoding_format: str = "float"
    embed_dtype: str = "float32"
    endianness: str = "native"
    dimensions: int | None = None


class PoolingRequest(EmbeddingRequest, kw_only=True):
    """POST /pooling."""

    task: str | None = None
    data: Any = None
    step_tag_id: int | None = None
    returned_token_ids: list[int] | None = None


class ScoreFields(PoolingFields, kw_only=True):
    """What scores and ranks know."""

    max_tokens_per_query: int = 0
    max_tokens_per_doc: int = 0
    instruction: Any = None
    chat_template_kwargs: Any = None


class ScoreRequest(ScoreFields, kw_only=True):
    """POST /score: one pair of these names."""

    queries: Any = None
    documents: Any = None
    items: Any = None
    text_1: Any = None
    text_2: Any = None
    data_1: Any = None
    data_2: Any = None


class RerankRequest(ScoreFields, kw_only=True):
    """POST /rerank."""

    query: Any = None
    documents: Any = None
    top_n: int = 0


class CohereEmbedRequest(msgspec.Struct, kw_only=True):
    """POST /v2/embed."""

    model: str | None = None
    texts: Any = None
    inputs: Any = None
    images: Any = None
    input_type: str | None = None
    output_dimension: int | None = None
    embedding_types: list[str] | None = None
    truncate: str = "END"
    max_tokens: int | None = None
    priority: int = 0


ENCODINGS = ("float", "base64", "bytes", "bytes_only")
ENDIANNESS = ("native", "big", "little")
_NOT_SERVED = {
    "mm_processor_kwargs": "images, audio and video are not served; leave mm_processor_kwargs out",
    "media_io_kwargs": "images, audio and video are not served; leave media_io_kwargs out",
    "instruction": "instructions for pairs are not served; write the instruction into the query",
    "max_tokens_per_query": "limits of one side are not served; use truncate_prompt_tokens",
    "max_tokens_per_doc": "limits of one side are not served; use truncate_prompt_tokens",
}
_PAIRS = (
    ("queries", "documents"),
    ("queries", "items"),
    ("text_1", "text_2"),
    ("data_1", "data_2"),
)


def check_fields(request: PoolingFields) -> None:
    """Refuses what is not served. Raises InvalidRequestError."""
    for name, sentence in _NOT_SERVED.items():
        if getattr(request, name, None):
            raise NotServedError(sentence, param=name)
    if request.normalize is not None:
        refuse("normalize", "normalize was taken out of the API; send use_activation")
    for name in ("user", "request_id"):
        value = getattr(request, name)
        if value is not None and len(value) > MAX_NAME:
            refuse(name, f"{name} has {len(value)} characters; the limit is {MAX_NAME}")
    if request.cache_salt is not None and not request.cache_salt.isprintable():
        refuse("cache_salt", "cache_salt holds a control character; use printable characters")


def check_encoding(request: EmbeddingRequest, dtypes: tuple[str, ...]) -> None:
    """Refuses a form of numbers that is not known. Raises InvalidRequestError."""
    for name, known in (
        ("encoding_format", ENCODINGS),
        ("embed_dtype", dtypes),
        ("endianness", ENDIANNESS),
    ):
        value = getattr(request, name)
        if value not in known:
            refuse(name, f"{name} is {value[:40]!r}; it must be one of {', '.join(known)}")


def params_of(request: PoolingFields, task: str | None) -> PoolingParams:
    """What the engine is asked for. Raises InvalidRequestError."""
    given = [request.use_activation, request.softmax, request.activation]
    return PoolingParams(
        task=task,
        use_activation=next((one for one in given if one is not None), None),
        dimensions=getattr(request, "dimensions", None),
        step_tag_id=getattr(request, "step_tag_id", None),
        returned_token_ids=getattr(request, "returned_token_ids", None),
    )


def inputs_of(value: Any, name: str = "input") -> list[str | list[int]]:
    """Texts or lists of token ids. Raises InvalidRequestError with the place of what is neither."""
    if isinstance(value, str):
        return [value]
    if value is None:
        refuse(name, f"{name} is missing; send text, token ids, or a list of either")
    if not isinstance(value, list):
        refuse(name, f"{name} is {kind_of(value)}; it must be text, token ids, or a list of either")
    if not value:
        refuse(name, f"{name} is an empty list; send at least one text")
    if type(value[0]) is int:
        return [_ids(value, name, name)]
    if len(value) > MAX_INPUTS:
        refuse(
            name,
            f"{name} has {len(value)} entries; the limit is {MAX_INPUTS}: send several requests",
        )
    found: list[str | list[int]] = []
    for place, one in enumerate(value):
        if isinstance(one, list):
            found.append(_ids(one, name, f"{name}[{place}]"))
        elif isinstance(one, str):
            found.append(one)
        else:
            refuse(
                name, f"{name}[{place}] is {kind_of(one)}; it must be text or a list of token ids"
            )
    return found


def _ids(values: list[Any], name: str, place: str) -> list[int]:
    if not values:
        refuse(name, f"{place} is an empty list; send at least one token id")
    for index, one in enumerate(values):
        if type(one) is not int:
            refuse(name, f"{place}[{index}] is {kind_of(one)}; it must be a token id")
        if not 0 <= one < 2**31:
            refuse(name, f"{place}[{index}] is {short(one)}; it must be a token id of the model")
    return values


def text_pairs(request: ScoreRequest) -> tuple[list[str], list[str]]:
    """Both sides of a score, of one length. Raises InvalidRequestError."""
    given = {name for pair in _PAIRS for name in pair if getattr(request, name) is not None}
    chosen = [pair for pair in _PAIRS if set(pair) == given]
    if not chosen:
        known = ", ".join(" and ".join(pair) for pair in _PAIRS)
        found = ", ".join(sorted(given)) or "neither"
        refuse("queries", f"a score needs one of {known}; there is {found}")
    (first, second) = chosen[0]
    firsts = texts_of(getattr(request, first), first)
    seconds = texts_of(getattr(request, second), second)
    if len(firsts) == 1:
        return firsts * len(seconds), seconds
    if len(firsts) != len(seconds):
        refuse(
            second,
            f"{first} has {len(firsts)} texts and {second} {len(seconds)}; send one, or as many on both sides",
        )
    return firsts, seconds


def texts_of(value: Any, name: str) -> list[str]:
    """Texts, alone or in a list, each also as an object with text. Raises InvalidRequestError."""
    items = value if isinstance(value, list) else [value]
    if value is None:
        refuse(name, f"{name} is missing; send text")
    if not items:
        refuse(name, f"{name} is an empty list; send at least one text")
    if len(items) > MAX_INPUTS:
        refuse(
            name,
            f"{name} has {len(items)} entries; the limit is {MAX_INPUTS}: send several requests",
        )
    return [
        _text(one, name, f"{name}[{place}]" if value is items else name)
        for place, one in enumerate(items)
    ]


def _text(one: Any, name: str, place: str) -> str:
    if isinstance(one, dict):
        if isinstance(one.get("content"), list):
            parts = one["content"]
            if all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
                return "\n".join(part["text"] for part in parts)
            raise NotServedError(
                f"{place} has parts that are not text; only text is served", param=name
            )
        one = one.get("text")
    if not isinstance(one, str):
        refuse(name, f"{place} is {kind_of(one)}; it must be text")
    if not one:
        refuse(name, f"{place} is empty; send text")
    return one
