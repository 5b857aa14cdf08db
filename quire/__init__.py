"""Quire: an LLM inference and serving engine. Public names load on first use."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__version_tuple__ = (0, 1, 0)

_PUBLIC = {
    "LLM": "quire.llm",
    "LLMEngine": "quire.llm_engine",
    "AsyncLLM": "quire.async_llm",
    "AsyncLLMEngine": "quire.async_llm",
    "EngineArgs": "quire.config.args",
    "AsyncEngineArgs": "quire.config.args",
    "SamplingParams": "quire.protocol.params",
    "PoolingParams": "quire.protocol.params",
    "RequestOutput": "quire.protocol.results",
    "CompletionOutput": "quire.protocol.results",
    "PoolingOutput": "quire.protocol.pooled_results",
    "PoolingRequestOutput": "quire.protocol.pooled_results",
    "EmbeddingOutput": "quire.protocol.pooled_results",
    "EmbeddingRequestOutput": "quire.protocol.pooled_results",
    "ClassificationOutput": "quire.protocol.pooled_results",
    "ClassificationRequestOutput": "quire.protocol.pooled_results",
    "ScoringOutput": "quire.protocol.pooled_results",
    "ScoringRequestOutput": "quire.protocol.pooled_results",
    "TextPrompt": "quire.protocol.prompts",
    "TokensPrompt": "quire.protocol.prompts",
    "ModelRegistry": "quire.models.registry",
    "EmbedsPrompt": "quire.protocol.prompts",
    "PromptType": "quire.protocol.prompts",
}

__all__ = ["__version__", "__version_tuple__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'quire' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
