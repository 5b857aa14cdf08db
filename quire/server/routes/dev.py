"""What helps while developing, served only with --server-dev-mode: /server_info.

It shows settings and environment without keys and tokens; /metrics and /version are `routes.info`.
"""

from __future__ import annotations

import dataclasses
import platform
from importlib import metadata
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

import quire
from quire.config import env
from quire.protocol.errors import InvalidRequestError
from quire.server.state import ServerState

router = APIRouter()

_LIBRARIES = (
    "torch",
    "numpy",
    "tokenizers",
    "safetensors",
    "msgspec",
    "pyzmq",
    "fastapi",
    "uvicorn",
)
_SECRET = frozenset({"hf_token", "api_key"})


@router.get("/server_info", include_in_schema=False)
async def server_info(http: Request, config_format: str = "text") -> Response:
    """Settings, environment and machine; `config_format` text gives the settings as one string."""
    if config_format not in ("text", "json"):
        raise InvalidRequestError(
            f"config_format is {config_format[:64]!r}; use text or json", param="config_format"
        )
    state: ServerState = http.app.state.quire
    settings = _settings(state)
    return JSONResponse(
        {
            "vllm_config": settings if config_format == "json" else str(settings),
            "vllm_env": {k: v for k, v in env.reported().items() if "KEY" not in k.upper()},
            "system_env": _system(),
        }
    )


def _settings(state: ServerState) -> dict[str, Any]:
    leaves = {**dataclasses.asdict(state.settings), "server": dataclasses.asdict(state.config)}
    for leaf in leaves.values():
        for name in _SECRET & leaf.keys():
            leaf[name] = "(hidden)" if leaf[name] else leaf[name]
    if state.llm is not None and state.ready:
        leaves["resolved"] = {name: value for name, value, _ in state.llm.info.table}
    return leaves


def _system() -> dict[str, str]:
    found = {
        "quire": quire.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "machine": platform.machine(),
    }
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "missing"
    return found
