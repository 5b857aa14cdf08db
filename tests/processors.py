"""Logits processors as an operator would write them; loaded by tests by name, in the engine's process too."""

from __future__ import annotations

import torch

from quire.protocol.logits_processors import (
    AdapterLogitsProcessor,
    LogitsProcessor,
    MoveDirectionality,
)


class TargetToken(LogitsProcessor):
    """Leaves a row nothing but the id in its extra_args["target_token"]."""

    @classmethod
    def validate_params(cls, sampling_params):
        target = (sampling_params.extra_args or {}).get("target_token")
        if target is not None and not isinstance(target, int):
            raise ValueError(f"target_token is {target!r}; it must be an integer")

    def __init__(self, vllm_config, device, is_pin_memory):
        self.targets = {}
        self.max_num_seqs = vllm_config.scheduler_config.max_num_seqs

    def is_argmax_invariant(self):
        return False

    def update_state(self, batch_update):
        if batch_update is None:
            return
        for row in batch_update.removed:
            self.targets.pop(row, None)
        for row, params, _, _ in batch_update.added:
            self.targets.pop(row, None)
            target = (params.extra_args or {}).get("target_token")
            if target is not None:
                self.targets[row] = target
        for source, target, direction in batch_update.moved:
            one, other = self.targets.pop(source, None), self.targets.pop(target, None)
            if one is not None:
                self.targets[target] = one
            if other is not None and direction is MoveDirectionality.SWAP:
                self.targets[source] = other

    def apply(self, logits):
        for row, target in self.targets.items():
            kept = logits[row, target].clone()
            logits[row] = float("-inf")
            logits[row, target] = kept
        return logits


class NoRepeats(AdapterLogitsProcessor):
    """With extra_args["no_repeats"] an id is never chosen twice in an output."""

    def is_argmax_invariant(self):
        return False

    def new_req_logits_processor(self, params):
        if not (params.extra_args or {}).get("no_repeats"):
            return None

        def ban(output_ids: list[int], logits: torch.Tensor) -> torch.Tensor:
            logits[output_ids] = float("-inf")
            return logits

        return ban


class Sharpen(LogitsProcessor):
    """Keeps the best id as it is: moves every row away from its best."""

    def __init__(self, vllm_config, device, is_pin_memory):
        self.num_calls = 0

    def is_argmax_invariant(self):
        return True

    def update_state(self, batch_update):
        self.num_calls += 1

    def apply(self, logits):
        best = logits.amax(dim=1, keepdim=True)
        return torch.where(logits < best, logits - 50.0, logits)


class Broken(LogitsProcessor):
    """Fails on rows that ask for it."""

    def __init__(self, vllm_config, device, is_pin_memory):
        self.rows = set()

    def is_argmax_invariant(self):
        return False

    def update_state(self, batch_update):
        if batch_update is not None:
            self.rows = {row for row, params, _, _ in batch_update.added if params.extra_args}

    def apply(self, logits):
        if self.rows:
            raise RuntimeError("this row is cursed")
        return logits
