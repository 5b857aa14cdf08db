"""The process that looks at a model of Transformers: `python -m quire.models.foreign.helper REQUEST ANSWER`.

Only here are Transformers and a checkpoint's own code imported; no number of the checkpoint is read.
REQUEST and ANSWER are files; see `models.foreign.ask`.
"""

from __future__ import annotations

import inspect
import logging
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from quire.models.foreign.join import Join
from quire.models.foreign.parts import attend, our_functions, recognise
from quire.models.foreign.program import AttentionLine, Program, Weight, inputs_of
from quire.models.foreign.protocol import Answer, Request
from quire.models.foreign.trace import (
    MODEL_DTYPE,
    CannotRunError,
    Recording,
    recorded,
)

LENGTHS = 1009, 1013
"""Tokens of the two passes: primes that no model has as a size."""


def main() -> None:
    """Reads the request, writes the answer; a model that cannot run is an answer too."""
    source, target = Path(sys.argv[1]), Path(sys.argv[2])
    request = msgspec.json.decode(source.read_bytes(), type=Request)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    target.write_bytes(msgspec.json.encode(answer_to(request)))


def answer_to(request: Request) -> Answer:
    """The program of a folder's model, or a sentence with what stands against it."""
    try:
        return Answer(program=look_at(request))
    except CannotRunError as error:
        return Answer(refusal=str(error))
    except Exception as error:  # the model's own code may raise anything
        text = " ".join(str(error).split())[:300]
        return Answer(refusal=f"Transformers raised {type(error).__name__}: {text}")


def look_at(request: Request) -> Program:
    """The program of a folder's model. Raises CannotRunError with what stands against it."""
    model = build(request)
    parameters = _stand_ins(model)
    now: list[Recording] = []
    found = recognise(model, lambda: now[-1])
    recordings, logits = [], []
    for length in LENGTHS:
        now.append(Recording(parameters[1], parameters[0]))
        logits.append(_pass(model, now[-1], length))
        recordings.append(now[-1])
    make = _states_program if request.pooled else _program
    return make(model, recordings[0], recordings[1], logits[0], found)


def build(request: Request) -> nn.Module:
    """The model with weights on the meta device; what its code computes when it is made has numbers."""
    import transformers

    values = {key: one for key, one in request.config.items() if key != "quantization_config"}
    values = {**values, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
    name = request.architecture
    remote = (values.get("auto_map") or {}).get("AutoModelForCausalLM")
    if request.trust_remote_code and remote:
        config = transformers.AutoConfig.from_pretrained(request.folder, trust_remote_code=True)
        for key, value in request.overrides.items():
            setattr(config, key, value)
        kind = transformers.dynamic_module_utils.get_class_from_dynamic_module(
            remote, request.folder
        )
    else:
        config = transformers.CONFIG_MAPPING[values["model_type"]].from_dict(values)
        kind = transformers.AutoModel if request.pooled else getattr(transformers, name)
    config._attn_implementation = "eager"
    torch.set_default_dtype(MODEL_DTYPE)
    try:
        with torch.no_grad(), _weights_on_meta():
            model: nn.Module = _without_pooler(config) if request.pooled else kind(config)
    finally:
        torch.set_default_dtype(torch.float32)
    if getattr(config, "is_encoder_decoder", False):
        raise CannotRunError("it is an encoder and a decoder")
    return model.eval()


def _without_pooler(config: Any) -> nn.Module:
    """The model that makes hidden states, and nothing above them."""
    import transformers

    kind: Any = transformers.MODEL_MAPPING[type(config)]
    takes = inspect.signature(kind).parameters
    model: nn.Module = kind(
        config, **({"add_pooling_layer": False} if "add_pooling_layer" in takes else {})
    )
    return model


@contextmanager
def _weights_on_meta() -> Iterator[None]:
    old = nn.Module.register_parameter

    def register(self: nn.Module, name: str, value: nn.Parameter | None) -> None:
        old(self, name, value)
        if value is not None:
            self._parameters[name] = nn.Parameter(value.to("meta"), requires_grad=False)

    nn.Module.register_parameter = register  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        nn.Module.register_parameter = old  # type: ignore[method-assign]


def _stand_ins(model: nn.Module) -> tuple[dict[int, str], FakeTensorMode]:
    """Puts tensors without numbers in the place of weights. Their names, by identity."""
    tie = getattr(model, "tie_weights", None)
    if tie is not None:
        tie()
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    made: dict[int, torch.Tensor] = {}
    names: dict[int, str] = {}
    keep = []
    for prefix, module in model.named_modules():
        for table, kept in (
            (module._parameters, True),
            (module._buffers, False),
        ):
            for name, old in table.items():
                if old is None or (not kept and name in module._non_persistent_buffers_set):
                    continue
                keep.append(old)
                if id(old) not in made:
                    with fake:
                        new = torch.empty(tuple(old.shape), dtype=old.dtype)
                    made[id(old)] = nn.Parameter(new, requires_grad=False) if kept else new
                    names[id(made[id(old)])] = f"{prefix}.{name}".removeprefix(".")
                table[name] = made[id(old)]
    return names, fake


def _pass(model: nn.Module, recording: Recording, length: int) -> torch.Tensor:
    """One forward pass. Returns the logits [1, T, V], or without a head the states [1, T, C]."""
    import transformers

    takes = inspect.signature(model.forward).parameters
    if "position_ids" not in takes:
        raise CannotRunError(
            "it takes no position_ids, so packed tokens cannot say where they stand"
        )
    ids, positions = (recording.empty(1, length, dtype=torch.int64) for _ in range(2))
    recording.new(ids)
    recording.new(positions)
    transformers.AttentionInterface.register("quire", partial(attend, recording))
    for module in model.modules():
        config = getattr(module, "config", None)
        if config is not None and hasattr(config, "_attn_implementation"):
            config._attn_implementation = "quire"
    with our_functions(model, recording), recorded(recording):
        first = first_position(model)
        where = positions + first if first else positions
        others: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
        if "token_type_ids" in takes:
            others["token_type_ids"] = torch.zeros_like(positions)
        out = model(input_ids=ids, position_ids=where, **others)
    if not recording.attention:
        raise CannotRunError("no part of it goes through the attention interface of Transformers")
    made: torch.Tensor = out.logits if hasattr(out, "logits") else out.last_hidden_state
    return made


def first_position(model: nn.Module) -> int:
    """What the code counts positions from: RoBERTa's kin begin behind the padding token's id."""
    made_of_ids = "create_position_ids_from_input_ids"  # where no positions are given
    files = {sys.modules[type(one).__module__] for one in model.modules()}
    if not any(hasattr(one, made_of_ids) for one in (*model.modules(), *files)):
        return 0
    whole: Any = model
    return int(whole.config.pad_token_id) + 1


def _embedding(model: nn.Module) -> torch.Tensor:
    """The table of tokens [V, C]."""
    whole: Any = model  # a class of Transformers, whose methods torch's class does not name
    table: torch.Tensor = whole.get_input_embeddings().weight
    return table


def _states_program(
    model: nn.Module,
    first: Recording,
    second: Recording,
    states: torch.Tensor,
    found: dict[str, dict[str, Any]],
) -> Program:
    """The program that ends in hidden states. Names in the checkpoint have the model's prefix, or none has."""
    embedding = first.name_of(_embedding(model))
    if embedding is None:
        raise CannotRunError("it has no plain embedding")
    names = {embedding: "embedding.weight"}
    join = Join(first, second, (LENGTHS[0], LENGTHS[1]), names)
    wanted = first.new(states)
    steps = join.needed(wanted)
    used = {number for step in steps for number in (*inputs_of(step), *step.outs)}
    prefix = f"{getattr(model, 'base_model_prefix', '')}.".removeprefix(".")
    table = _weights(model, first, join, steps, names, found)
    config: Any = model.config
    return Program(
        registers=join.registers,
        steps=steps,
        head=len(steps),
        hidden=wanted,
        logits=wanted,
        constants=join.constants(used),
        weights={
            name: msgspec.structs.replace(one, source=one.source and f"{prefix}{one.source}")
            for name, one in table.items()
        },
        attention=[AttentionLine(**line) for line in first.attention],
        prefix=prefix,
        ignored=[f"{prefix}{one}" for one in _buffers(model)],
        left=join.left(steps),
        architecture=type(model).__name__,
        vocab_size=_embedding(model).shape[0],
        hidden_size=states.shape[-1],
        max_position_embeddings=int(config.max_position_embeddings) - first_position(model),
        tied=True,
        head_source="",
    )


def _buffers(model: nn.Module) -> list[str]:
    """Patterns of names of what is computed when the model is made, which older checkpoints may hold."""
    return [
        re.sub(r"(?<=\.)\d+(?=\.)", "{layer}", f"{name}.{buffer}")
        for name, module in model.named_modules()
        for buffer in sorted(module._non_persistent_buffers_set)
    ]


def _program(
    model: nn.Module,
    first: Recording,
    second: Recording,
    logits: torch.Tensor,
    found: dict[str, dict[str, Any]],
) -> Program:
    embedding = first.name_of(_embedding(model))
    head = model.get_output_embeddings()  # type: ignore[operator]
    if head is None or embedding is None or not isinstance(head, nn.Linear):
        raise CannotRunError("it has no plain embedding, or no plain product that makes logits")
    head_name, bias = first.name_of(head.weight), first.name_of(head.bias)
    names = {embedding: "embedding.weight"}
    tied = head_name == embedding
    if not tied:
        names[str(head_name)] = "head.weight"
    if bias:
        names[bias] = "head.bias"
    join = Join(first, second, (LENGTHS[0], LENGTHS[1]), names)
    wanted = first.new(logits)
    steps = join.needed(wanted)
    head_at = [
        place
        for place, step in enumerate(steps)
        if step.op == "linear" and step.args[1] == ("embedding.weight" if tied else "head.weight")
    ]
    if len(head_at) != 1:
        raise CannotRunError("its logits are not made by one product")
    hidden = steps[head_at[0]].args[0]["r"]
    _check_head(steps[head_at[0] :], hidden)
    used = {number for step in steps for number in (*inputs_of(step), *step.outs)}
    config = model.config.get_text_config()  # type: ignore[union-attr, operator]
    table = _weights(model, first, join, steps, names, found)
    return Program(
        registers=join.registers,
        steps=steps,
        head=head_at[0],
        hidden=hidden,
        logits=wanted,
        constants=join.constants(used),
        weights=table,
        attention=[
            AttentionLine(**{**line, "sinks": names.get(line["sinks"], line["sinks"])})
            for line in first.attention
        ],
        prefix=f"{getattr(model, 'base_model_prefix', '')}.".removeprefix("."),
        ignored=_buffers(model),
        left=join.left(steps),
        architecture=type(model).__name__,
        vocab_size=head.weight.shape[0],
        hidden_size=head.weight.shape[1],
        max_position_embeddings=int(getattr(config, "max_position_embeddings", 0) or 2048),
        tied=tied,
        head_source=next(f"{name}.weight" for name, one in model.named_modules() if one is head),
    )


def _check_head(steps: list[Any], hidden: int) -> None:
    """What comes after the product may use its own results only: it runs for fewer rows."""
    known = {hidden}
    for step in steps:
        if not set(inputs_of(step)) <= known and inputs_of(step):
            raise CannotRunError("its logits are made of more than the last hidden state")
        known.update(step.outs)


def _weights(
    model: nn.Module,
    recording: Recording,
    join: Join,
    steps: list[Any],
    names: dict[str, str],
    found: dict[str, dict[str, Any]],
) -> dict[str, Weight]:
    """Every parameter that a step uses, under its name here."""
    owners: dict[str, tuple[str, torch.Tensor]] = {
        names.get(name, name): (name, tensor)
        for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }
    turned = {names.get(name, name) for name in recording.turned}
    norms = {f"{name}.weight": norm for name, norm in found.items() if "kind" in norm}
    sinks = {names.get(str(line["sinks"]), line["sinks"]) for line in recording.attention}
    table: dict[str, Weight] = {}
    for step in steps:
        for name in _named(step):
            if name in table:
                continue
            if name not in owners:
                width = norms[name]["width"]
                table[name] = Weight(shape=(width,), source=None, group="norm")
                continue
            source, tensor = owners[name]
            shape = tuple(tensor.shape)
            table[name] = Weight(
                shape=shape[::-1] if name in turned else shape,
                source=source,
                group=_group(name, step.op, tensor.dtype, name in sinks),
                transpose=name in turned,
                add_one=bool(norms.get(name, {}).get("add_one")),
            )
    for name in sorted(sinks - {None}):
        source, tensor = owners[str(name)]
        table[str(name)] = Weight(shape=tuple(tensor.shape), source=source, group="choice")
    return table


def _named(value: Any) -> Iterator[str]:
    """The parameters of a step."""
    if not hasattr(value, "op"):
        if isinstance(value, dict) and "p" in value:
            yield value["p"]
        for item in (
            value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        ):
            yield from _named(item)
    elif value.op in ("linear", "embedding", "rms_norm", "layer_norm"):
        yield from (one for one in value.args[1:3] if isinstance(one, str))
    else:
        yield from _named(value.args)
        yield from _named(value.kwargs)


def _group(name: str, op: str, dtype: torch.dtype, is_sink: bool) -> str:
    if name.startswith("embedding.") or op == "embedding":
        return "embedding"
    if name.startswith("head."):
        return "head"
    if op in ("rms_norm", "layer_norm"):
        return "norm"
    if dtype == torch.float32 or is_sink:
        return "choice"
    if op != "linear":
        return "other"
    last = name.split(".")[-2] if "." in name else name
    if last in ("gate", "router"):
        return "router"
    return "attention" if "attn" in name or "attention" in name else "feed_forward"


if __name__ == "__main__":
    main()
