"""A trace of what the engine's process computes, by PyTorch's profiler, and the layer table beside it.

When it runs is `engine.control`; its settings are `config.profiling`.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from quire.config.profiling import read_profiler
from quire.engine.layer_table import layer_table
from quire.ops.spans import Spans

logger = logging.getLogger(__name__)


class StepProfiler:
    """One trace at a time. Use it from the thread of the engine's loop.

    All threads are traced: the arithmetic runs on another one, whose operations have spans meanwhile.

    watch  of the executor; told what has the spans, and None at the end.
    """

    def __init__(self, config: dict[str, Any], watch: Callable[[Spans | None], None]) -> None:
        """Raises SettingsError for a configuration that cannot be."""
        self._config = read_profiler(config)
        self._watch = watch
        self._spans = Spans()
        self._profile: Any = None
        self._num_steps = 0
        self.is_on = False
        self._sums_only = False

    def start_layers(self) -> bool:
        """From the next step on, sums for `stop_layers`, without a trace. Raises ValueError if any profile runs."""
        self._check_free()
        self._sums_only = True
        self._spans = Spans()
        self._watch(self._spans)
        return True

    def stop_layers(self) -> str:
        """Ends it; a `LayerTable` as JSON. Raises ValueError if none runs."""
        if not self._sums_only:
            raise ValueError("no layer table is being made; start one first")
        self._sums_only = False
        self._watch(None)
        return layer_table(self._spans.times(), self._spans.places.classes).as_json()

    def _check_free(self) -> None:
        if self.is_on or self._sums_only:
            raise ValueError("a profile runs already; stop it first")

    def start(self) -> str:
        """Begins, after the steps to wait. Raises ValueError if none is configured, or one runs."""
        if self._config.profiler is None:
            raise ValueError(
                "no profiler is configured; start with --profiler-config "
                '\'{"profiler": "torch", "torch_profiler_dir": "/a/folder"}\''
            )
        self._check_free()
        self.is_on = True
        self._num_steps = 0
        if not self._config.num_before:
            self._begin()
        return self._config.torch_profiler_dir

    def _begin(self) -> None:
        from torch._C._profiler import _ExperimentalConfig
        from torch.profiler import ProfilerActivity, profile, supported_activities

        config = self._config
        wanted = {ProfilerActivity.CPU, ProfilerActivity.CUDA} & set(supported_activities())  # type: ignore[no-untyped-call]
        self._profile = profile(
            activities=wanted,
            with_stack=config.torch_profiler_with_stack,
            with_flops=config.torch_profiler_with_flops,
            record_shapes=config.torch_profiler_record_shapes,
            profile_memory=config.torch_profiler_with_memory,
            experimental_config=_ExperimentalConfig(profile_all_threads=True),
        )
        self._profile.__enter__()
        self._spans = Spans(detailed=config.detailed_trace_annotation)
        self._watch(self._spans)

    def on_step(self) -> None:
        """Counts a step: the trace begins after those to wait, and ends after those to trace."""
        self._num_steps += 1
        traced = self._num_steps - self._config.num_before
        if self._profile is None and traced >= 0:
            self._begin()
        elif self._config.num_traced and traced >= self._config.num_traced:
            self.stop()

    def stop(self) -> str:
        """Ends and writes the trace and the table; the trace's path, empty if nothing was traced. Raises ValueError."""
        if not self.is_on:
            raise ValueError("no profile runs; start one first")
        self.is_on = False
        profile, self._profile = self._profile, None
        if profile is None:
            return ""
        self._watch(None)
        profile.__exit__(None, None, None)
        try:
            return self._write(profile)
        except (OSError, RuntimeError) as error:
            logger.exception("the profile could not be written")
            raise ValueError(f"the profile could not be written: {error}") from error

    def _write(self, profile: Any) -> str:
        folder = Path(self._config.torch_profiler_dir)
        folder.mkdir(parents=True, exist_ok=True)
        end = ".json.gz" if self._config.torch_profiler_use_gzip else ".json"
        name = f"quire-{os.getpid()}-{time.time_ns()}"
        path = folder / f"{name}.pt.trace{end}"
        profile.export_chrome_trace(str(path))
        if self._config.torch_profiler_dump_cuda_time_total:
            table = layer_table(self._spans.times(), self._spans.places.classes)
            (folder / f"{name}.layers.json").write_text(table.as_json())
            (folder / f"{name}.layers.txt").write_text(table.as_text())
        logger.info("profile written to %s", path)
        return str(path)
