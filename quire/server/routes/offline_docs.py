"""GET /docs with --enable-offline-docs: the API as one page that loads nothing from elsewhere.

The description itself is /openapi.json.
"""

from __future__ import annotations

import html
import json
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

router = APIRouter()

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "h2{font:600 1rem ui-monospace,monospace;margin:1.5rem 0 .25rem}"
    "table{border-collapse:collapse;width:100%}td{border-top:1px solid #ccc;padding:.2rem .5rem .2rem 0;"
    "font:14px ui-monospace,monospace}p{margin:.25rem 0}"
)
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("/docs", include_in_schema=False)
async def docs(http: Request) -> Response:
    """Every path with its methods, and the fields of its body."""
    paths: dict[str, Any] = http.app.openapi()["paths"]
    parts = [
        _operation(method, path, about)
        for path, methods in paths.items()
        for method, about in methods.items()
    ]
    page = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Quire: API</title>'
        f'<style>{_STYLE}</style><h1>API</h1><p>The same for programs: <a href="openapi.json">openapi.json'
        f"</a></p>{''.join(parts)}</html>"
    )
    return HTMLResponse(page, headers=_HEADERS)


def _operation(method: str, path: str, about: dict[str, Any]) -> str:
    content = about.get("requestBody", {}).get("content", {}).values()
    fields = [pair for one in content for pair in one["schema"].get("properties", {}).items()]
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(_kind(schema))}</td></tr>"
        for name, schema in fields
    )
    text = html.escape(about.get("description", ""))
    table = f"<table>{rows}</table>" if rows else ""
    return f"<h2>{method.upper()} {html.escape(path)}</h2><p>{text}</p>{table}"


def _kind(schema: dict[str, Any]) -> str:
    """The type of a field, and its default, in a few words."""
    kinds = [one.get("type", "") for one in schema.get("anyOf", [schema])]
    text = " or ".join(str(kind) for kind in kinds if kind) or "any"
    if "default" in schema:
        text += f" = {json.dumps(schema['default'])}"
    return text
