"""Which families of endpoints a server has, by its settings.

The families are `server.routes`; plugged-in ones are `server.endpoint_plugins`.
"""

from __future__ import annotations

from fastapi import APIRouter

from quire.config.schema import Settings
from quire.config.server import ServerConfig
from quire.server.routes import (
    admin,
    batches,
    chat,
    completions,
    dev,
    embeddings,
    files,
    generative,
    inference,
    info,
    load,
    messages,
    offline_docs,
    pooling,
    profile,
    render,
    responses,
    sagemaker,
    score,
    tokenize,
    tokenizer_info,
)


def routers_of(settings: Settings, config: ServerConfig) -> list[APIRouter]:
    """The routers in the order in which they are asked."""
    found = [tokenize.router, info.router]
    if config.enable_offline_docs and not config.disable_fastapi_docs:
        found.append(offline_docs.router)
    if config.enable_tokenizer_info_endpoint:
        found.append(tokenizer_info.router)
    if config.render_only:
        return [*found, render.router]
    found += [inference.router, load.router]
    if not config.tokens_only:
        found += [
            *(completions.router, chat.router, responses.router, messages.router),
            *(files.router, batches.router, render.router, sagemaker.router),
            *(embeddings.router, pooling.router, score.router),
            generative.router,
        ]
    if config.tokens_only or config.server_dev_mode:
        found.append(admin.aborts)
    if config.server_dev_mode:
        found += [dev.router, admin.router]
    if settings.observability.profiler_config.get("profiler"):
        found.append(profile.router)
    return found
