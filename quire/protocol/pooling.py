"""What a user may ask of a request that gives an embedding, classes or a score instead of text.

Whether a model can do it is checked in `frontend.inputs`.
"""

from __future__ import annotations

import copy
from typing import Any

import msgspec

from quire.protocol.checks import integer, integers, limits, refuse
from quire.protocol.options import LateInteractionParams, RequestOutputKind

POOLING_TASKS = (
    "embed",
    "classify",
    "token_embed",
    "token_classify",
    "plugin",
    "embed&token_classify",
)


class PoolingParams(msgspec.Struct, kw_only=True, omit_defaults=True, tag="pooling"):
    """What to make of a prompt's hidden states. Making one checks it; raises InvalidRequestError.

    use_activation  None is True: normalise an embedding, softmax or sigmoid for classes.
    dimensions      first entries of an embedding to keep, for models trained for it.
    """

    use_activation: bool | None = None
    dimensions: int | None = None
    step_tag_id: int | None = None
    returned_token_ids: list[int] | None = None
    task: str | None = None
    requires_token_ids: bool = False
    skip_reading_prefix_cache: bool | None = None
    late_interaction_params: LateInteractionParams | None = None
    extra_kwargs: dict[str, Any] | None = None
    output_kind: RequestOutputKind = RequestOutputKind.FINAL_ONLY

    def __post_init__(self) -> None:
        self.verify()

    def verify(self) -> None:
        """Checks every field; may be called again after a change."""
        if self.task in ("score", "encode"):
            instead = "'classify'" if self.task == "score" else "'token_embed' or 'token_classify'"
            refuse("task", f"task {self.task!r} is an old name; use {instead}.")
        if self.task is not None and self.task not in POOLING_TASKS:
            refuse("task", f"task is {self.task!r}; it must be one of {list(POOLING_TASKS)}.")
        if self.dimensions is not None:
            self.dimensions = limits("dimensions", integer("dimensions", self.dimensions), low=1)
        if self.step_tag_id is not None:
            self.step_tag_id = limits(
                "step_tag_id", integer("step_tag_id", self.step_tag_id), low=0
            )
        if self.returned_token_ids is not None:
            self.returned_token_ids = integers("returned_token_ids", self.returned_token_ids)
        if self.output_kind is not RequestOutputKind.FINAL_ONLY:
            refuse(
                "output_kind",
                "a pooling request gives one output at the end; use RequestOutputKind.FINAL_ONLY.",
            )

    def clone(self) -> PoolingParams:
        """A copy that shares no list or dict with this one."""
        return copy.deepcopy(self)
