"""One step on one device: plan in, result out. Everything it uses was chosen at start.

The hard cap of this file is 400 lines; a feature goes into the collaborator that it belongs to.
"""

from __future__ import annotations

import time

import torch

from quire.models.decoder import AnyDecoder
from quire.protocol.step import StepPlan, StepResult
from quire.worker.adapters import Adapters
from quire.worker.batch import Batch, BatchBuilder
from quire.worker.encoder import Encoder
from quire.worker.graphs import Graphs
from quire.worker.memory import CacheMemory
from quire.worker.output import Masks, Output
from quire.worker.pooling import PooledOutput
from quire.worker.speculative.plain import Drafter
from quire.worker.state import WorkerState
from quire.worker.transfer import Transfer


class ModelRunner:
    """Runs steps one after the other, always on the same thread."""

    def __init__(
        self,
        *,
        decoder: AnyDecoder,
        state: WorkerState,
        memory: CacheMemory,
        builder: BatchBuilder,
        graphs: Graphs,
        output: Output | PooledOutput,
        adapters: Adapters,
        encoder: Encoder,
        transfer: Transfer,
        drafter: Drafter,
    ) -> None:
        self.decoder = decoder
        self.state = state
        self.memory = memory
        self.builder = builder
        self.graphs = graphs
        self.output = output
        self.adapters = adapters
        self.encoder = encoder
        self.transfer = transfer
        self.drafter = drafter

    @torch.inference_mode()
    def step(self, plan: StepPlan, masks: Masks) -> StepResult:
        """Carries out a plan. `masks` is asked only if a sampling row needs one."""
        started = time.perf_counter()
        if not plan.rows:
            self.state.apply(plan)
            return StepResult(step=plan.step, rows=[])
        with self.memory.in_step():
            batch = self.prepare(plan)
            self.adapters.select(batch)
            self.transfer.before(batch)
            self.encoder.embed(batch)
            hidden = self.graphs.forward(batch)
            rows = self.output.collect(batch, hidden, masks)
            rows = self.drafter.propose(batch, hidden, rows)
            self.transfer.after(batch)
        return StepResult(step=plan.step, rows=rows, elapsed_s=time.perf_counter() - started)

    def prepare(self, plan: StepPlan) -> Batch:
        """Brings the rows up to date, copies blocks, and fills the step's inputs."""
        self.state.apply(plan)
        self.memory.copy(plan.copies)
        self.encoder.encode(plan)
        return self.builder.build(plan)
