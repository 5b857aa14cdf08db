"""`--profiler-config` as fields with their checks; the tracing itself is `engine.profiler`.

The keys are those of vLLM's profiler configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from quire.protocol.errors import SettingsError

_NO_EFFECT = {"capture_torch_profiler": False, "ignore_frontend": False}
"""Keys that are known, with their defaults. A front is never traced, whatever `ignore_frontend` says."""


_LEAST = {
    "delay_iterations": 0, "max_iterations": 0, "wait_iterations": 0, "warmup_iterations": 0,
    "active_iterations": 1,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ProfilerConfig:
    """How a trace is made. Iterations are steps.

    delay_iterations, wait_iterations, warmup_iterations  are added up: steps before the trace.
    active_iterations  how many steps are traced, if there are steps to wait or to warm up.
    max_iterations     how many steps are traced at most; 0 is no end.
    detailed_trace_annotation  names each step with its number, rows and tokens.
    torch_profiler_dump_cuda_time_total  whether the layer table is written beside the trace.
    """

    profiler: str | None = None
    torch_profiler_dir: str = ""
    torch_profiler_with_stack: bool = True
    torch_profiler_with_flops: bool = False
    torch_profiler_use_gzip: bool = True
    torch_profiler_record_shapes: bool = False
    torch_profiler_with_memory: bool = False
    torch_profiler_dump_cuda_time_total: bool = True
    detailed_trace_annotation: bool = False
    delay_iterations: int = 0
    max_iterations: int = 0
    wait_iterations: int = 0
    warmup_iterations: int = 0
    active_iterations: int = 5

    @property
    def num_before(self) -> int:
        """Steps before the trace."""
        return self.delay_iterations + self.wait_iterations + self.warmup_iterations

    @property
    def num_traced(self) -> int:
        """Steps after which the trace ends by itself; 0 is never."""
        ends = [self.max_iterations]
        if self.wait_iterations or self.warmup_iterations:
            ends.append(self.active_iterations)
        return min((end for end in ends if end), default=0)


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
    for name, least in _LEAST.items():
        if getattr(config, name) < least:
            raise SettingsError(
                f"--profiler-config: {name} is {getattr(config, name)}; it counts from {least}"
            )
    if given.get("capture_torch_profiler"):
        raise SettingsError(
            "--profiler-config: capture_torch_profiler is true; nothing is captured at start, leave it out"
        )
    return config
