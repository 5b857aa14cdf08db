"""`vllm.envs`: the variables of vLLM that act here, with their values as of now.

All variables are read in `quire.config.env`.
"""

from __future__ import annotations

from typing import Any

from quire.config import env

_FIXED: dict[str, Any] = {"VLLM_USE_V1": True, "VLLM_BATCH_INVARIANT": True}
_READ: dict[str, Any] = {
    "VLLM_API_KEY": lambda: env.read("QUIRE_API_KEY"),
    "VLLM_CACHE_ROOT": lambda: str(env.cache_dir()),
    "VLLM_ENABLE_V1_MULTIPROCESSING": env.engine_in_own_process,
    "VLLM_LOGGING_LEVEL": lambda: env.log_level().upper(),
    "VLLM_PLUGINS": lambda: None if env.plugins() is None else sorted(env.plugins() or ()),
}


def __getattr__(name: str) -> Any:
    if name in _FIXED:
        return _FIXED[name]
    if name in _READ:
        return _READ[name]()
    raise AttributeError(f"no variable {name} acts on Quire; it has {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return sorted([*_FIXED, *_READ])
