"""Lists in pages: the query's limit and order, and the list object.

What is listed is the routes' business.
"""

from __future__ import annotations

from typing import Any

from quire.protocol.errors import InvalidRequestError


def page_size(given: str | None, *, default: int, most: int) -> int:
    """The limit of a query. Raises InvalidRequestError."""
    if given is None:
        return default
    if not given.isdecimal() or len(given) > 9 or not 1 <= int(given) <= most:
        raise InvalidRequestError(
            f"limit is {given[:32]!r}; it must be a number from 1 to {most}", param="limit"
        )
    return int(given)


def order_of(given: str | None) -> bool:
    """Whether the newest come first. Raises InvalidRequestError."""
    if given not in (None, "asc", "desc"):
        raise InvalidRequestError(f"order is {given[:32]!r}; use asc or desc", param="order")
    return given != "asc"


def page(objects: list[dict[str, Any]], *, has_more: bool) -> dict[str, Any]:
    """The list object of one page."""
    return {
        "object": "list",
        "data": objects,
        "first_id": objects[0]["id"] if objects else None,
        "last_id": objects[-1]["id"] if objects else None,
        "has_more": has_more,
    }
