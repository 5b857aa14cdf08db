"""The way past the framework's routing: what takes it, and what does not."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from quire.server.direct import direct_routes


async def _plain(http: Request) -> Response:
    return Response(b"plain")


async def _other(http: Request) -> Response:
    return Response(b"other")


async def _with_name(http: Request, name: str) -> Response:
    return Response(name)


async def _with_value(http: Request) -> dict[str, int]:
    return {"a": 1}


def _synchronous(http: Request) -> Response:
    return Response(b"")


def test_only_endpoints_that_take_a_request_and_give_a_response() -> None:
    first, second = APIRouter(), APIRouter()
    first.add_api_route("/plain", _plain, methods=["GET", "POST"])
    first.add_api_route("/named/{name}", _with_name)
    first.add_api_route("/value", _with_value)
    first.add_api_route("/sync", _synchronous)
    first.add_api_route("/guarded", _plain, dependencies=[Depends(_other)])
    second.add_api_route("/plain", _other, methods=["GET"])
    found = direct_routes([first, second])
    assert set(found) == {("GET", "/plain"), ("POST", "/plain")}
    assert found["GET", "/plain"].endpoint is _plain
