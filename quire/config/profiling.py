"""`--profiler-config` as fields with their checks; the tracing itself is `engine.profiler`.

The keys are those of vLLM's profiler configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from quire.protocol.errors import SettingsError

_NO_EFFECT = {
    "torch_profiler_dump_cuda_time_total": True, "capture_torch_profiler": False,
    "detailed_trace_annotation": False, "ignore_frontend": False, "warmup_iterations": 0,
    "active_iterations": 5, "wait_iterations": 0,
}  # fmt: skip
"""Keys that are known and change nothing here, with their defaults."""


@dataclass(frozen=True, kw_only=True)
class ProfilerConfig:
    """How a trace is made. `delay_iterations` and `max_iterations` count steps; 0 is none and no end."""

    profiler: str | None = None
    torch_profiler_dir: str = ""
    torch_profiler_with_stack: bool = True
    torch_profiler_with_flops: bool = False
    torch_profiler_use_gzip: bool = True
    torch_profiler_record_shapes: bool = False
    torch_profiler_with_memory: bool = False
    delay_iterations: int = 0
    max_iterations: int = 0


def read_profiler(given: Mapping[str, Any]) -> ProfilerConfig:
    """The configuration in a JSON object. Raises SettingsError."""
    known = {field.name: field for field in fields(ProfilerConfig)}
    for name, value in given.items():
        if name not in known and name not in _NO_EFFECT:
            raise SettingsError(
                f"--profiler-config has the unknown key {name!r}; known: {', '.join(known)}"
            )
        default = known[name].default if name in known else _NO_EFFECT[name]
        kind = str if name in ("profiler", "torch_profiler_dir") else type(default)
        if value is not None and type(value) is not kind:
            raise SettingsError(
                f"--profiler-config: {name} is {value!r}; it must be a {kind.__name__}"
            )
    values = {name: value for name, value in given.items() if name in known and value is not None}
    config = ProfilerConfig(**values)
    if config.profiler not in (None, "torch"):
        raise SettingsError(
            f"--profiler-config: profiler is {config.profiler!r}; only torch is served"
        )
    if config.profiler and not Path(config.torch_profiler_dir).is_absolute():
        raise SettingsError(
            f"--profiler-config: torch_profiler_dir is {config.torch_profiler_dir!r}; give an absolute path"
        )
    if config.delay_iterations < 0 or config.max_iterations < 0:
        raise SettingsError("--profiler-config: delay_iterations and max_iterations count from 0")
    return config
