"""Routes that an installation adds to the server: its endpoint plug-ins.

They are let in only by name, in QUIRE_PLUGINS; finding them is `config.plugins`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from fastapi import FastAPI

from quire.config.plugins import ENDPOINTS, load_entry_points
from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError
from quire.server.face import Face

logger = logging.getLogger(__name__)


class Endpoint(Protocol):
    """What an entry point's factory gives.

    required_tasks  what the model must do; "generate" is all that is served.
    """

    name: str
    required_tasks: Iterable[str]

    def attach_router(self, app: FastAPI) -> None:
        """Adds routes; `app.state.quire` is the server's state."""
        ...

    async def init_state(self, engine_client: Face, state: Any, args: ServerConfig) -> None:
        """Called once the engine serves; `state` is `app.state`."""
        ...


def installed_endpoints() -> list[Endpoint]:
    """Those that QUIRE_PLUGINS names. Raises SettingsError for one that cannot be made or used here."""
    found: list[Endpoint] = []
    for name, factory in load_entry_points(ENDPOINTS, only_named=True):
        try:
            endpoint: Endpoint = factory()
            tasks = set(endpoint.required_tasks)
        except Exception as error:  # the operator's code may fail in any way
            raise SettingsError(
                f"endpoint plug-in {name!r} cannot be made: {type(error).__name__}: {error}"
            ) from error
        if not tasks <= {"generate"}:
            raise SettingsError(
                f"endpoint plug-in {name!r} needs {', '.join(sorted(tasks))}; only generate is served"
            )
        found.append(endpoint)
    return found


def attach(app: FastAPI, endpoints: Sequence[Endpoint]) -> None:
    """Adds their routes behind all others."""
    app.state.endpoints = list(endpoints)
    for endpoint in endpoints:
        endpoint.attach_router(app)
        logger.info("routes of the endpoint plug-in %s are served", endpoint.name)


async def start(app: FastAPI, llm: Face, config: ServerConfig) -> None:
    """Tells the endpoints of an application that the engine serves; one that fails is logged."""
    for endpoint in app.state.endpoints:
        try:
            await endpoint.init_state(llm, app.state, config)
        except Exception:
            logger.exception("endpoint plug-in %s did not start", endpoint.name)
