"""Whether a prompt ends inside the reasoning that the answer goes on with.

A chat template may open the reasoning, close it at once, or leave it to the model.
"""

from __future__ import annotations

from collections.abc import Sequence

from quire.frontend.parsers.formats import ThinkFormat
from quire.frontend.tokenizer import Tokenizer

_MAX_BACK = (
    65_536  # ids looked at from the end; reasoning that a client wants continued may be long
)
_TEXT_IDS = 512  # ids decoded where a tag is more than one token


def ends_inside(
    think: ThinkFormat, prompt_ids: Sequence[int], tokenizer: Tokenizer | None
) -> bool | None:
    """Whether the last tag of the prompt's last turn opens the reasoning; None without a tag in it."""
    if tokenizer is None or not prompt_ids or not think.starts:
        return None
    starts = _ids(think.starts, tokenizer)
    ends = _ids(think.ends, tokenizer)
    if None in starts or None in ends:
        return _by_text(think, prompt_ids, tokenizer)
    special = set(tokenizer.all_special_ids)
    for token_id in reversed(prompt_ids[-_MAX_BACK:]):
        if token_id in starts:
            return True
        if token_id in ends:
            return False
        if token_id in special:
            return None
    return None


def _ids(tags: tuple[str, ...], tokenizer: Tokenizer) -> set[int | None]:
    return {tokenizer.convert_tokens_to_ids(tag.strip()) for tag in tags}


def _by_text(think: ThinkFormat, prompt_ids: Sequence[int], tokenizer: Tokenizer) -> bool | None:
    tags = {tag.strip() for tag in (*think.starts, *think.ends)}
    special = set(tokenizer.all_special_ids)
    ids = list(prompt_ids[-_TEXT_IDS:])
    for place in range(len(ids) - 1, -1, -1):
        if ids[place] in special and tokenizer.decode(ids[place]) not in tags:
            ids = ids[place + 1 :]
            break
    text = tokenizer.decode(ids)
    start = max(text.rfind(tag.strip()) for tag in think.starts)
    end = max(text.rfind(tag.strip()) for tag in think.ends)
    return None if start == end else start > end
