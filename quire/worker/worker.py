"""One device: builds the model and everything around it, then runs its steps.

Who calls it, and from which thread, is `worker.executor`'s business.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from quire.config.env import cache_dir
from quire.config.schema import ModelConfig, Settings
from quire.hardware.threads import set_threads
from quire.models.build import build_decoder
from quire.models.decoder import AnyDecoder, Decoder
from quire.models.footprint import arena_bytes, native_rooms, step_sizes
from quire.models.heads import PoolingHead
from quire.models.last_layer import can_end_early
from quire.models.loading.ahead import Ahead
from quire.models.loading.kept import ReadAhead
from quire.models.loading.packed import bytes_kept
from quire.models.registry import ModelDescription
from quire.ops.arena import Arena
from quire.ops.cpu.memory import reserve
from quire.ops.registry import Table
from quire.ops.spans import Spans
from quire.protocol.cache import CacheLayout
from quire.protocol.errors import SettingsError
from quire.protocol.step import StepPlan, StepResult
from quire.quant.schemes.checkpoint import Scheme, scheme_for
from quire.sampling.processors import make_processors
from quire.worker.adapters import NoAdapters
from quire.worker.batch import BatchBuilder
from quire.worker.encoder import Encoder, NoEncoder, PromptEmbeds
from quire.worker.graphs import Graphs
from quire.worker.memory import CacheMemory
from quire.worker.output import Masks, Output
from quire.worker.places import places_of
from quire.worker.pooling import PooledOutput
from quire.worker.reads import Reads
from quire.worker.runner import ModelRunner
from quire.worker.speculative.plain import NoDrafter
from quire.worker.state import WorkerState
from quire.worker.text_encoder import TextEncoder
from quire.worker.transfer import NoTransfer


class Worker:
    """A loaded model with its cache. All calls, this one too, come from one thread.

    settings    resolved: no None left.
    cache_dtype  the model's dtype, or a key of `ops.formats.CACHE_FORMATS`.
    on_phase    told what is loading, with percent or -1.
    ahead       weights that are being packed already.
    """

    _spans: Spans | None = None

    def __init__(
        self,
        *,
        settings: Settings,
        layout: CacheLayout,
        description: ModelDescription,
        cache_dtype: str,
        on_phase: Callable[[str, int], None],
        ahead: Ahead | ReadAhead | None = None,
    ) -> None:
        parallel, model, rows = settings.parallel, settings.model, settings.scheduler.max_num_seqs
        assert parallel.threads is not None and model.max_model_len is not None
        assert rows is not None
        set_threads(parallel.threads)
        device = usable_device(parallel.device)
        self.table = Table(
            device=device.type, overrides=parallel.kernel_overrides, fast_math=parallel.fast_math
        )
        on_phase("loading weights", 0)
        place, kept_bytes = cache_dir() / "packed", bytes_kept(settings.load.packed_weights_gib)
        decoder = build_decoder(
            description,
            self.table,
            dtype=getattr(torch, model.dtype),
            device=device,
            load_format=settings.load.load_format,
            progress=settings.load.use_tqdm_on_load,
            max_model_len=model.max_model_len,
            scheme=_scheme(model, description, device),
            cache_format="plain" if cache_dtype == model.dtype else cache_dtype,
            packed_weights=(place, kept_bytes) if kept_bytes else None,
            ahead=ahead,
        )
        on_phase("allocating the KV cache", 100)
        given = settings.cache.kv_cache_memory_bytes is not None
        memory = CacheMemory(
            layout=layout, decoder=decoder, device=device, table=self.table, is_given=given
        )
        state = WorkerState(layout=layout, max_num_seqs=rows, max_model_len=model.max_model_len)
        arena = _arena(decoder, settings, device)
        output = self._output(settings, description, state, decoder, device)
        self.runner = ModelRunner(
            decoder=decoder,
            state=state,
            memory=memory,
            builder=BatchBuilder(
                state=state,
                memory=memory,
                arena=arena,
                device=device,
                has_types=decoder.spec.token_types > 1,
                reads=Reads(memory, output.num_read) if can_end_early(decoder.spec) else None,
            ),
            graphs=Graphs(decoder, self.table),
            output=output,
            adapters=NoAdapters(),
            encoder=_encoder(settings, decoder, state, memory, arena),
            transfer=NoTransfer(),
            drafter=NoDrafter(),
        )

    def _output(
        self,
        settings: Settings,
        description: ModelDescription,
        state: WorkerState,
        decoder: AnyDecoder,
        device: torch.device,
    ) -> Output | PooledOutput:
        """What the step ends in: tokens, or what is pooled."""
        model = settings.model
        if description.pooling is None:
            return Output(
                state=state,
                decoder=decoder,
                table=self.table,
                logprobs_mode=model.logprobs_mode,
                dtype=model.dtype,
                processors=make_processors(settings, device),
            )
        is_dummy = settings.load.load_format == "dummy"
        folder, heads = Path(description.path), {}
        for task, layers in {"": description.pooling.head, **description.pooling.heads}.items():
            heads[task] = PoolingHead(self.table, layers)
            heads[task].load(folder, dummy=is_dummy, device=device)
        return PooledOutput(
            state=state,
            decoder=decoder,
            table=self.table,
            pooler=description.pooling.pooler,
            heads=heads,
            dtype=model.dtype,
        )

    def step(self, plan: StepPlan, masks: Masks) -> StepResult:
        spans = self._spans
        if spans is None:
            return self.runner.step(plan, masks)
        name = "step"
        if spans.detailed:
            name = f"step {plan.step}: {len(plan.rows)} rows, {plan.num_tokens} tokens"
        return spans.step(name, partial(self.runner.step, plan, masks))

    def watch(self, spans: Spans | None) -> None:
        """From the next step on, `spans` has what operations take; None ends it."""
        if spans is not None:
            runner = self.runner
            spans.places = places_of(
                {"": runner.decoder, "output": runner.output, "memory": runner.memory}
            )
        self._spans = self.table.watcher = spans
        self.runner.graphs.watch(spans)


def _scheme(model: ModelConfig, description: ModelDescription, device: torch.device) -> Scheme:
    own, formats = description.quantization, description.formats
    return scheme_for(model.quantization, own, formats, device.type, model.activation_bits)


def _encoder(
    settings: Settings,
    decoder: AnyDecoder,
    state: WorkerState,
    memory: CacheMemory,
    arena: Arena,
) -> Encoder:
    """What runs before the decoder in a step, if anything does. Raises SettingsError for two at once."""
    device, embeds = memory.buffer.device, settings.model.enable_prompt_embeds
    if decoder.spec.encoder is None:
        return PromptEmbeds(state, device) if embeds else NoEncoder()
    if embeds:
        raise SettingsError("prompts as embeddings are not served by encoder-decoder models")
    assert isinstance(decoder, Decoder)
    return TextEncoder(decoder=decoder, state=state, memory=memory, arena=arena, device=device)


def usable_device(name: str) -> torch.device:
    """The device "cpu" or "cuda". Raises SettingsError for a GPU that this build of torch cannot use."""
    if name == "cuda" and not torch.cuda.is_available():
        raise SettingsError(
            f"device is 'cuda', but torch {torch.__version__} cannot use this machine's GPU: install a "
            "build of torch for it, or give --device cpu"
        )
    return torch.device(name)


def _arena(decoder: AnyDecoder, settings: Settings, device: torch.device) -> Arena:
    """An arena of one chunk that the largest step fills, and the kernels' own scratch.

    Their pages stay untouched until a step needs them.
    """
    sizes = step_sizes(settings, dtype_bytes=decoder.dtype.itemsize)
    reserve(*native_rooms(decoder.spec, sizes))
    return Arena(device, arena_bytes(decoder.spec, sizes))
