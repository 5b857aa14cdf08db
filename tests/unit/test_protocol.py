"""Every message comes back from msgpack as it went in, the fields of later features too."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from quire.protocol import wire
from quire.protocol.outputs import EngineInfo, EngineOutputs, EngineStats, SequenceUpdate
from quire.protocol.params import PoolingParams, SamplingParams
from quire.protocol.request import (
    AdapterRef,
    EncoderInput,
    EngineRequest,
    GrammarSpec,
    MediaItem,
    TensorRef,
)
from quire.protocol.step import (
    BlockCopy,
    NewRow,
    PositionLogprobs,
    RowGrowth,
    RowResult,
    StepPlan,
    StepResult,
)

TENSOR = TensorRef(dtype="float32", shape=(2, 3), data=bytes(range(24)))
MEDIA = MediaItem(
    modality="image", offset=3, length=7, digest=b"\x00\xff", tensors={"pixels": TENSOR}
)
LOGPROBS = PositionLogprobs([4, 9], [-0.1, -2.5000000000000004e-3], [1, 2])
PARAMS = SamplingParams(n=3, temperature=0.5, stop=["a"], logit_bias={5: 1.5}, logprobs=2)

REQUEST = EngineRequest(
    request_id="r",
    prompt_token_ids=[1, 2, 3],
    params=PARAMS,
    seed=2**64 - 1,
    eos_token_ids=(2,),
    arrival_time=1.25,
    priority=-4,
    client_index=1,
    cache_salt="salt",
    adapter=AdapterRef(id=3, generation=2),
    media=(MEDIA,),
    positions=[[0, 1, 2], [0, 1, 1], [0, 0, 1]],
    embeds=TENSOR,
    embed_rows=(0, 2),
    spans=((1, 2),),
    type_from=3,
    encoder=EncoderInput(token_ids=[7], tensors={"mel": TENSOR}),
    grammar=GrammarSpec(kind="json", text="{}", options={"strict": True}, starts_after_ids=(8, 9)),
    end_of_thinking_ids=(8,),
    start_of_thinking_ids=(9,),
    resume_ids=[[4], [], [5, 6]],
    transfer={"remote": "host", "port": 7, "async": True, "none": None},
    data_parallel_rank=0,
    trace_headers={"traceparent": "00-1"},
)
NEW_ROW = NewRow(
    row=5,
    request_id="r",
    index=2,
    token_ids=[1, 2],
    num_prompt_tokens=1,
    params=PARAMS,
    seed=9,
    block_ids=[[0, 4], [-1, 2]],
    eos_token_ids=(2,),
    adapter=AdapterRef(id=1),
    media=(MEDIA,),
    positions=[[0], [0], [0]],
    embeds=TENSOR,
    embed_rows=(0,),
    spans=((0, 1),),
    type_from=2,
    encoder=EncoderInput(token_ids=[1]),
    needs_mask=True,
)
PLAN = StepPlan(
    step=4,
    freed_rows=[1],
    new_rows=[NEW_ROW],
    growth=[RowGrowth(2, [[3], []])],
    copies=[BlockCopy(1, 3, 4)],
    rows=[5, 2],
    starts=[0, 9],
    counts=[2, 3],
    samples=[True, False],
    drafts={2: [4, 5]},
    encodes={5: 7},
)
RESULT = StepResult(
    step=4,
    elapsed_s=0.125,
    rows=[
        RowResult(
            row=5,
            token_ids=[7],
            logprobs=[LOGPROBS],
            prompt_logprobs=[LOGPROBS],
            drafts=[1],
            pooled=TENSOR,
            error="why",
            is_refused=True,
            nonfinite=True,
        )
    ],
)
INFO = EngineInfo(
    max_model_len=1,
    max_num_seqs=2,
    max_num_batched_tokens=3,
    block_size=4,
    num_blocks=5,
    capacity_tokens=6,
    cache_bytes=7,
    vocab_size=8,
    dtype="float32",
    fingerprint="fp",
    enable_prefix_caching=True,
    table=[("a", "b", "c")],
    providers=[("a", "b", "c", "d")],
)
OUTPUTS = EngineOutputs(
    updates=[
        SequenceUpdate(
            request_id="r",
            index=1,
            token_ids=[3],
            logprobs=[LOGPROBS],
            prompt_logprobs=[LOGPROBS],
            finish_reason="stop",
            stop_reason=3,
            num_cached_tokens=0,
            queued_s=0.5,
            scheduled_s=0.75,
            pooled=TENSOR,
            error="e",
        )
    ],
    stats=EngineStats(num_running=1, cache_usage=0.5),
    at_s=2.5,
)


@pytest.mark.parametrize("message", [REQUEST, PLAN, RESULT, OUTPUTS, INFO, NEW_ROW])
def test_messages_round_trip(message: Any) -> None:
    raw = msgspec.msgpack.encode(message)
    assert msgspec.msgpack.decode(raw, type=type(message)) == message


@pytest.mark.parametrize("message", [REQUEST, NEW_ROW, PLAN, RESULT.rows[0], OUTPUTS.updates[0]])
def test_no_field_is_left_out_of_the_round_trip(message: Any) -> None:
    """A field added without a value here would not be tested: this says so."""
    for field in msgspec.structs.fields(type(message)):
        if field.required:
            continue
        default = (
            field.default if field.default is not msgspec.NODEFAULT else field.default_factory()  # type: ignore[operator]
        )
        assert getattr(message, field.name) != default, field.name


@pytest.mark.parametrize(
    "message",
    [wire.Add(REQUEST), wire.Abort("r"), wire.Abort("r", 2), wire.Call(1, "has_work"), wire.Stop()],
)
def test_messages_to_the_engine_are_told_apart(message: Any) -> None:
    assert wire.decode_to_engine(wire.encode(message)) == message


@pytest.mark.parametrize(
    "message",
    [
        wire.Phase("loading", 40),
        wire.Ready(INFO),
        wire.Outputs(OUTPUTS),
        wire.Reply(1, True),
        wire.Reply(2, error="no"),
        wire.Died("why", "load"),
    ],
)
def test_messages_from_the_engine_are_told_apart(message: Any) -> None:
    assert wire.decode_from_engine(wire.encode(message)) == message


def test_pooling_and_sampling_params_are_told_apart() -> None:
    pooled = msgspec.structs.replace(REQUEST, params=PoolingParams(task="embed"))
    for request, kind in ((REQUEST, SamplingParams), (pooled, PoolingParams)):
        back = msgspec.msgpack.decode(msgspec.msgpack.encode(request), type=EngineRequest)
        assert type(back.params) is kind


@pytest.mark.parametrize("raw", [b"", b"\xc1", msgspec.msgpack.encode({"type": "exec"})])
def test_what_is_no_message_is_refused(raw: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        wire.decode_to_engine(raw)
