"""Transformers under the same measurement: the same prompts, the same numbers of tokens, greedy.

The only file beside the tests that may load Transformers, and only when it is asked for.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from typing import Any

from quire.bench.datasets import Sample, batches
from quire.config.schema import Settings
from quire.hardware.threads import bound_waiting, set_threads
from quire.protocol.errors import SettingsError


class HfModel:
    """A checkpoint in Transformers, on the CPU or the first GPU. Prompts are padded on the left."""

    def __init__(self, settings: Settings, num_threads: int, *, compiled: bool = False) -> None:
        """Raises SettingsError if Transformers is not there or cannot load the checkpoint.

        The number of threads holds for all later arithmetic of the calling thread.
        """
        bound_waiting()
        library = _transformers()
        torch = importlib.import_module("torch")
        set_threads(num_threads)
        self._torch = torch
        on_gpu = settings.parallel.device != "cpu" and torch.cuda.is_available()
        self.device = torch.device("cuda" if on_gpu else "cpu")
        try:
            self.model = _load(library, torch, settings).to(self.device).eval()
        except (OSError, ValueError, KeyError) as error:
            raise SettingsError(
                f"Transformers cannot load {settings.model.model}: {error}"
            ) from error
        if compiled:
            self.model.forward = torch.compile(self.model.forward)
        self.dtype = str(self.model.dtype).removeprefix("torch.")

    def run(self, samples: Sequence[Sample], batch_size: int) -> tuple[float, list[list[int]]]:
        """Seconds, and the ids made for each sample. A batch makes as many tokens as its longest needs."""
        start = time.perf_counter()
        made: list[list[int]] = []
        for batch in batches(samples, batch_size):
            made += self._batch(batch)
        return time.perf_counter() - start, made

    def _batch(self, batch: Sequence[Sample]) -> list[list[int]]:
        torch = self._torch
        width = max(len(sample.ids) for sample in batch)
        rows = [[0] * (width - len(sample.ids)) + sample.ids for sample in batch]
        marks = [[0] * (width - len(sample.ids)) + [1] * len(sample.ids) for sample in batch]
        length = max(sample.output_len for sample in batch)
        with torch.inference_mode():
            made = self.model.generate(
                input_ids=torch.tensor(rows, device=self.device),
                attention_mask=torch.tensor(marks, device=self.device),
                max_new_tokens=length,
                do_sample=False,
                num_beams=1,
                use_cache=True,
                pad_token_id=0,
            )
        ids: list[list[int]] = made[:, width:].tolist()
        return [row[: sample.output_len] for row, sample in zip(ids, batch)]


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise SettingsError(
            "the hf backend needs Transformers, which is not installed; run: pip install transformers"
        ) from error


def _load(library: Any, torch: Any, settings: Settings) -> Any:
    """The model in the dtype of the settings; random weights where the load format is dummy."""
    names = {"half": "float16", "float": "float32"}
    name = names.get(settings.model.dtype, settings.model.dtype)
    dtype = "auto" if name == "auto" else getattr(torch, name)
    kind = library.AutoModelForCausalLM
    if settings.load.load_format != "dummy":
        model = kind.from_pretrained(
            settings.model.model,
            dtype=dtype,
            revision=settings.model.revision,
            trust_remote_code=settings.model.trust_remote_code,
        )
    else:
        config = library.AutoConfig.from_pretrained(settings.model.model)
        model = kind.from_config(config, dtype=config.dtype if dtype == "auto" else dtype)
    for setting in ("temperature", "top_p", "top_k", "eos_token_id"):  # greedy, and never an end
        setattr(model.generation_config, setting, None)
    return model
