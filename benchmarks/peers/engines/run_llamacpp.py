"""llama.cpp through the C interface of llama-cpp-python, with a loop of continuous batching around it.

llama-cpp-python brings no server that batches; the loop does what llama.cpp's own server does: the rows
that decode first, then as many prompt tokens as fit into the batch.
"""

from __future__ import annotations

import ctypes
import time
from dataclasses import dataclass

import llama_cpp
import numpy as np
from peer_session import Answer, Request, Setup, main

BATCH_TOKENS = 2048
UBATCH_TOKENS = 512
MIN_SHARED = 64
"""A common beginning shorter than this is computed by every sequence for itself."""


@dataclass
class Sequence:
    """A request in its slot; `num_cached` of its tokens are in the cache."""

    slot: int
    request: Request
    answer: Answer
    num_cached: int

    def next_tokens(self, room: int) -> list[int]:
        """The tokens that come next, at most `room` of them."""
        if self.answer.token_ids:
            return self.answer.token_ids[-1:] if room else []
        return self.request.prompt[self.num_cached : self.num_cached + room]

    @property
    def is_prefilled(self) -> bool:
        return self.num_cached >= len(self.request.prompt)

    @property
    def is_finished(self) -> bool:
        return len(self.answer.token_ids) == self.request.num_output


def common_length(prompts: list[list[int]]) -> int:
    """Tokens that all prompts begin with, each keeping at least one of its own."""
    shortest = min(len(prompt) for prompt in prompts) - 1
    for place in range(shortest):
        if len({prompt[place] for prompt in prompts}) > 1:
            return place
    return shortest


@llama_cpp.llama_log_callback
def _log(level: int, text: bytes, _: ctypes.c_void_p) -> None:
    if level >= 4:
        print(text.decode(errors="replace"), end="", flush=True)


class LlamaCpp:
    """Options: unified (one cache buffer for all sequences), flash (0 turns flash attention off)."""

    name = "llamacpp"

    def __init__(self, setup: Setup) -> None:
        self.version = f"llama-cpp-python {llama_cpp.__version__}"
        llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        model = llama_cpp.llama_model_load_from_file(setup.model.encode(), params)
        if not model:
            raise SystemExit(f"llama.cpp cannot load {setup.model}")
        self._num_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        is_unified, flash = setup.is_on("unified"), setup.option("flash", "1")
        self.settings = {
            "unified": is_unified,
            "flash": flash,
            "system": llama_cpp.llama_print_system_info().decode(),
        }
        slot_tokens = -(-(setup.max_len + 8) // 256) * 256
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = setup.max_seqs * slot_tokens
        context.n_batch, context.n_ubatch = BATCH_TOKENS, UBATCH_TOKENS
        context.n_seq_max = setup.max_seqs
        context.n_threads = context.n_threads_batch = setup.num_threads
        context.kv_unified = is_unified
        context.flash_attn_type = int(flash)
        context.no_perf = True
        self._context = llama_cpp.llama_init_from_model(model, context)
        if not self._context:
            raise SystemExit(f"llama.cpp cannot make a context of {context.n_ctx} tokens")
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)

    def generate(self, requests: list[Request]) -> list[Answer]:
        """All at once; a beginning that all prompts share is computed once and given to every sequence."""
        llama_cpp.llama_memory_clear(self._memory, False)
        shared = self._compute_shared(requests)
        answers = [Answer() for _ in requests]
        waiting = [
            Sequence(slot, request, answer, shared)
            for slot, (request, answer) in enumerate(zip(requests, answers, strict=True))
        ]
        while waiting:
            self._step(waiting)
            waiting = [one for one in waiting if not one.is_finished]
        return answers

    def _compute_shared(self, requests: list[Request]) -> int:
        if len(requests) < 2:
            return 0
        shared = common_length([one.prompt for one in requests])
        if shared < MIN_SHARED:
            return 0
        for start in range(0, shared, BATCH_TOKENS):
            self._batch.n_tokens = 0
            self._put(requests[0].prompt[start : min(start + BATCH_TOKENS, shared)], start, 0)
            self._decode()
        for slot in range(1, len(requests)):
            llama_cpp.llama_memory_seq_cp(self._memory, 0, slot, -1, -1)
        return shared

    def _step(self, waiting: list[Sequence]) -> None:
        """One batch: a token of every sequence that decodes, then prompts in order."""
        self._batch.n_tokens = 0
        sampled: list[tuple[int, Sequence]] = []
        for one in sorted(waiting, key=lambda one: not one.is_prefilled):
            tokens = one.next_tokens(BATCH_TOKENS - self._batch.n_tokens)
            if not tokens:
                continue
            self._put(tokens, one.num_cached, one.slot)
            one.num_cached += len(tokens)
            if one.is_prefilled:
                last = self._batch.n_tokens - 1
                self._batch.logits[last] = 1
                sampled.append((last, one))
        self._decode()
        for row, one in sampled:
            pointer = llama_cpp.llama_get_logits_ith(self._context, row)
            logits = np.ctypeslib.as_array(pointer, shape=(self._num_vocab,))
            one.answer.add([int(logits.argmax())], time.perf_counter())

    def _put(self, tokens: list[int], position: int, slot: int) -> None:
        batch = self._batch
        for row, token in enumerate(tokens, batch.n_tokens):
            batch.token[row] = token
            batch.pos[row] = position + row - batch.n_tokens
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = slot
            batch.logits[row] = 0
        batch.n_tokens += len(tokens)

    def _decode(self) -> None:
        code = llama_cpp.llama_decode(self._context, self._batch)
        if code:
            raise RuntimeError(f"llama_decode of {self._batch.n_tokens} tokens returned {code}")


if __name__ == "__main__":
    main(LlamaCpp)
