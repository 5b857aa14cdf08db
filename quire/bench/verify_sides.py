"""The two sides that `quire verify` compares: our model in a worker, and the same in Transformers.

Both give what they compute of one prompt, in float32.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from quire.config.schema import (
    CacheConfig,
    LoadConfig,
    ModelConfig,
    ParallelConfig,
    SchedulerConfig,
    Settings,
)
from quire.engine.resolve import describe_model, resolve
from quire.hardware.cpu import read_machine
from quire.models.decoder import Decoder
from quire.models.loading.floats import floats_of
from quire.models.loading.gguf.found import gguf_file
from quire.models.loading.hub import with_local_folders
from quire.models.registry import known_as
from quire.protocol.errors import ModelLoadError, SettingsError
from quire.protocol.params import SamplingParams
from quire.protocol.step import NewRow, StepPlan
from quire.worker.worker import Worker


@dataclass(frozen=True)
class States:
    """What one side computed of T tokens, float32.

    logits  [T, V]. layers: what each layer gives [T, C], in order; empty where it is not seen.
    names   of the layers.
    """

    logits: torch.Tensor
    layers: list[torch.Tensor] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    @property
    def named_layers(self) -> list[tuple[str, torch.Tensor]]:
        return list(zip(self.names, self.layers, strict=True))


class Ours:
    """A model of ours with a cache for one sequence of up to `max_len` tokens."""

    def __init__(
        self,
        model: str,
        *,
        max_len: int,
        dtype: str,
        quantization: str | None,
        activation_bits: int | None = None,
        model_impl: str,
        trust_remote_code: bool,
        hf_overrides: dict[str, Any],
    ) -> None:
        """Raises SettingsError or ModelLoadError for what cannot run."""
        settings = with_local_folders(
            Settings(
                model=ModelConfig(
                    model=model,
                    dtype=dtype,
                    quantization=quantization,
                    activation_bits=activation_bits,
                    max_model_len=max_len,
                    skip_tokenizer_init=True,
                    model_impl=model_impl,  # type: ignore[arg-type]
                    trust_remote_code=trust_remote_code,
                    hf_overrides=hf_overrides,
                ),
                load=LoadConfig(use_tqdm_on_load=False),
                cache=CacheConfig(),
                scheduler=SchedulerConfig(max_num_seqs=1, max_num_batched_tokens=max_len),
                parallel=ParallelConfig(device="cpu"),
            )
        )
        self.settings = settings
        self.description = describe_model(settings)
        resolved = resolve(settings, self.description, read_machine())
        self.dtype = resolved.dtype
        self._layout = resolved.layout
        self._worker = Worker(
            settings=resolved.settings,
            layout=resolved.layout,
            description=self.description,
            cache_dtype=resolved.cache_dtype,
            on_phase=lambda text, percent: None,
        )

    @torch.inference_mode()
    def states(self, ids: list[int]) -> States:
        """One pass over a prompt; nothing of it is kept."""
        runner = self._worker.runner
        new = NewRow(
            row=0,
            request_id="",
            index=0,
            token_ids=ids,
            num_prompt_tokens=len(ids),
            params=SamplingParams(temperature=0.0, max_tokens=1),
            seed=0,
            block_ids=[
                list(range(len(ids) // group.block_size + 1)) for group in self._layout.groups
            ],
        )
        plan = StepPlan(
            step=0, new_rows=[new], rows=[0], starts=[0], counts=[len(ids)], samples=[False]
        )
        context = runner.prepare(plan).context
        context.read = None  # here every token is looked at
        decoder, layers = runner.decoder, []
        if isinstance(decoder, Decoder):
            taps = tuple(range(len(decoder.spec.layers)))
            hidden, tapped = decoder.forward(context, taps=taps)
            layers = [one.float().clone() for one in tapped]
        else:
            hidden = decoder.forward(context)
        logits = decoder.logits(hidden.clone(), context).clone()
        runner.state.apply(StepPlan(step=0, freed_rows=[0]))
        return States(logits, layers)


class Theirs:
    """A checkpoint in Transformers.

    how  what of the checkpoint was read by whom, in a few words.
    """

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        config: dict[str, Any],
        is_quantized: bool,
        trust_remote_code: bool,
    ) -> None:
        """Raises SettingsError or ModelLoadError if it is not installed or cannot load it."""
        try:
            self._library = importlib.import_module("transformers")
        except ImportError as error:
            raise SettingsError(
                "quire verify compares with Transformers, which is not installed; "
                "install it with: pip install 'quire[transformers]'"
            ) from error
        self._register(config)
        self.version = str(self._library.__version__)
        self._trust = trust_remote_code
        load = self._quantized if is_quantized else self._plain
        try:
            self._model, self.how = load(model, getattr(torch, dtype), config)
        except (OSError, ValueError, KeyError, ImportError, RuntimeError, TypeError) as error:
            text = " ".join(str(error).split())[:300]
            raise ModelLoadError(f"Transformers cannot load {model}: {text}") from error
        self._model.eval()
        self._layers = _longest_list(self._model)

    def _register(self, config: dict[str, Any]) -> None:
        """Some classes for text that it has are not among those that it finds by themselves: Mistral 4's."""
        for name in map(known_as, config.get("architectures") or ()):
            own = getattr(self._library, name, None)
            if name.endswith("ForCausalLM") and own is not None:
                self._library.AutoModelForCausalLM.register(own.config_class, own, exist_ok=True)

    def _plain(self, model: str, dtype: torch.dtype, config: dict[str, Any]) -> tuple[Any, str]:
        kind, file = self._library.AutoModelForCausalLM, gguf_file(model)
        if file is not None:
            made = kind.from_pretrained(str(file.parent), gguf_file=file.name, dtype=dtype)
            return made, "the file dequantized by Transformers"
        made, info = kind.from_pretrained(
            model, dtype=dtype, trust_remote_code=self._trust, output_loading_info=True
        )
        if info["missing_keys"]:
            names = ", ".join(sorted(info["missing_keys"])[:3])
            raise ValueError(f"it finds no weights for {names}")
        return made, "weights read by Transformers"

    def _quantized(self, model: str, dtype: torch.dtype, config: dict[str, Any]) -> tuple[Any, str]:
        """The model with weights that our readers dequantized: what is compared is what follows from them."""
        values = {key: one for key, one in config.items() if key != "quantization_config"}
        known = self._library.CONFIG_MAPPING[values["model_type"]].from_dict(values)
        made = self._library.AutoModelForCausalLM.from_config(known, dtype=dtype)
        wanted = dict(made.state_dict())
        found: set[str] = set()
        for name, tensor in floats_of(Path(model), config):
            if name not in wanted:
                raise ValueError(f"it has no weight {name}")
            with torch.no_grad():
                wanted[name].copy_(tensor)
            found.add(name)
        made.tie_weights()
        places = {wanted[name].data_ptr() for name in found}
        left = [name for name, one in wanted.items() if one.data_ptr() not in places]
        if left:
            raise ValueError(f"the checkpoint has no numbers for {', '.join(left[:3])}")
        return made, "weights dequantized by our readers"

    @torch.no_grad()
    def states(self, ids: list[int]) -> States:
        """One pass over a prompt."""
        kept: list[torch.Tensor] = []

        def keep(module: Any, args: Any, out: Any) -> None:
            found = out[0] if isinstance(out, tuple) else out
            kept.append(found.detach().float()[0].clone())

        hooks = [layer.register_forward_hook(keep) for _, layer in self._layers]
        try:
            logits = self._model(torch.tensor([ids]), use_cache=False).logits[0].float()
        finally:
            for hook in hooks:
                hook.remove()
        halved = getattr(self._model.config, "rescale_every", 0)
        if halved > 0:  # RWKV's stream is halved behind so many layers there, and not here
            kept = [one * 2.0 ** (place // halved) for place, one in enumerate(kept)]
        return States(logits, kept, [name for name, _ in self._layers])


def _longest_list(model: Any) -> list[tuple[str, Any]]:
    """The layers of a model, with their names: its longest list of modules that is in no other."""
    lists: list[list[tuple[str, Any]]] = [
        [(f"{name}.{place}", one) for place, one in module.named_children()]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and name.count(".") <= 2
    ]
    return max(lists, key=len, default=[])
