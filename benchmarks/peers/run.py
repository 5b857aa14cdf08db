"""Runs Quire and peers in turns, pass by pass, and prints how many times as fast Quire is.

Run as `python -m benchmarks.peers run --against llamacpp --workloads B1,B2,B3 --reps 3 --model qwen3-0.6b`.
All engines of a workload are loaded, warm and at rest before the first pass; then A B A B, each stopped while
another runs, and the state of the machine noted before every pass. Loading is never part of a figure.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.peers.checkpoints import SHAPES
from benchmarks.peers.contention import Contention, wait_for_quiet
from benchmarks.peers.conversion import ensure_model
from benchmarks.peers.cpu import cpu_name
from benchmarks.peers.figures import EngineRun, Pass, figures_of, table
from benchmarks.peers.launch import EngineFailed, Running, ScriptEngine, ServerEngine
from benchmarks.peers.probe import Probe
from benchmarks.peers.roster import (
    FILES,
    FORMATS,
    PEERS,
    ROOT,
    Peer,
    refusal,
    script_command,
    server_command,
)
from benchmarks.peers.store import DEFAULT_ROOT, Store
from benchmarks.peers.workloads import WORKLOADS, write_requests


@dataclass(frozen=True)
class Plan:
    """What one comparison is: engines in turn, a model in a number format, passes of each.

    Before each pass up to `quiet_wait_s` go by until other programs rest; `stamp` tells runs apart.
    """

    store: Store
    model: str
    number_format: str
    num_passes: int
    num_threads: int
    quiet_wait_s: float
    stamp: str

    def name(self, workload: str, engine: str) -> str:
        """The name of the files of one engine in one workload."""
        return f"{self.stamp}-{self.model}-{self.number_format}-{workload}-{engine}"


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(plan: Plan, peer: Peer, workload: str) -> Running:
    """The engine, loaded and warm. Raises EngineFailed, or RuntimeError if its model cannot be made."""
    reason = refusal(peer, workload, plan.number_format)
    if reason:
        raise EngineFailed(reason)
    if not Path(peer.python(plan.store)).exists():
        raise EngineFailed(f"not installed; run: python -m benchmarks.peers.setup {peer.name}")
    model = ensure_model(peer, plan.store, plan.model, plan.number_format)
    tokenizer = plan.store.checkpoint(plan.model)
    variables = peer.environment(plan.store, plan.num_threads)
    name = plan.name(workload, peer.name)
    log = plan.store.log(name)
    if WORKLOADS[workload].num_clients:
        port = free_port()
        command = server_command(
            peer, plan.store, model, plan.number_format, port, plan.num_threads, tokenizer
        )
        return ServerEngine(command, variables, port, workload, log)
    requests = plan.store.requests(f"{workload}-{plan.num_passes}")
    write_requests(requests, workload, plan.num_passes)
    command = script_command(
        peer, plan.store, model, plan.number_format, workload, plan.num_threads, tokenizer
    )
    return ScriptEngine(command, variables, requests, plan.store.results() / f"{name}.json", log)


def measure(plan: Plan, engine: Running, number: int, workload: str, probe: Probe) -> Pass:
    """One pass, the machine probed just before it. Raises EngineFailed."""
    wait_for_quiet(plan.quiet_wait_s)
    state = probe()
    contention = Contention([engine.group])
    done = engine.run_pass(number)
    others = contention.share()
    figures = figures_of(workload, done["wall_s"], done["requests"])
    ids = tuple(tuple(one["token_ids"]) for one in done["requests"] if one["token_ids"])
    return Pass(figures, state.read_gbps, state.fma_tflops, others, ids)


def compare(plan: Plan, peers: Sequence[Peer], workload: str, probe: Probe) -> list[EngineRun]:
    """One workload: every engine started, then passes in turn. An engine that fails is left out after it."""
    live: dict[str, Running] = {}
    failures: dict[str, str] = {}
    passes: dict[str, list[Pass]] = {peer.name: [] for peer in peers}
    try:
        for peer in peers:
            try:
                live[peer.name] = start(plan, peer, workload)
            except (EngineFailed, RuntimeError) as error:
                failures[peer.name] = str(error)
        for number in range(plan.num_passes):
            for name in [name for name in live if name not in failures]:
                try:
                    passes[name].append(measure(plan, live[name], number, workload, probe))
                    print(f"# {workload} {name} {number}: {passes[name][-1].figures}", flush=True)
                except EngineFailed as error:
                    failures[name] = str(error)
    finally:
        for engine in live.values():
            engine.close()
    return [
        EngineRun(
            peer.name,
            live[peer.name].version if peer.name in live else "",
            live[peer.name].settings if peer.name in live else {},
            passes[peer.name],
            failures.get(peer.name, ""),
        )
        for peer in peers
    ]


def commit() -> str:
    """The commit of this tree, with a plus where files differ; "unknown" outside a repository."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty=+"], cwd=ROOT, capture_output=True, text=True
    )
    return done.stdout.strip() or "unknown"


def write_summary(plan: Plan, workload: str, runs: Sequence[EngineRun]) -> None:
    """The figures of a workload as JSON, without the ids of answers (those lie in the engines' own files)."""
    content = {
        "model": plan.model,
        "format": plan.number_format,
        "workload": workload,
        "threads": plan.num_threads,
        "cpu": cpu_name(),
        "commit": commit(),
        "engines": [asdict(run) for run in runs],
    }
    for engine in content["engines"]:
        for one in engine["passes"]:
            del one["token_ids"]
    path = plan.store.results() / f"{plan.name(workload, 'summary')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))


def parse_names(words: str, known: Callable[[str], bool], what: str) -> list[str]:
    """A comma-separated list, each part known. Raises ValueError that names the part that is not."""
    names = [word.strip() for word in words.split(",") if word.strip()]
    for name in names:
        if not known(name):
            raise ValueError(f"{what} {name!r} is not known")
    if not names:
        raise ValueError(f"no {what} is given")
    return names


def parse(words: list[str]) -> argparse.Namespace:
    """The command line. Ends the program at a name that is not known."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers run", description=__doc__)
    known = sorted(set(PEERS) - {"quire"})
    parser.add_argument("--against", required=True, help=f"some of {','.join(known)}")
    parser.add_argument("--workloads", default="B1,B2,B3", help=f"some of {','.join(WORKLOADS)}")
    parser.add_argument("--reps", type=int, default=3, help="passes of each engine; 3")
    parser.add_argument("--model", choices=sorted(SHAPES), default="qwen3-0.6b")
    parser.add_argument(
        "--format",
        choices=(*FORMATS, *FILES),
        default="bf16",
        help="how weights are held; q8_0 and so on: the same GGUF file for Quire and llama.cpp; int8_a8 and "
        "int4_a8: Quire rounds inputs to 8 bits, as llama.cpp does by itself",
    )
    parser.add_argument("--threads", type=int, default=2, help="arithmetic threads; 2")
    parser.add_argument(
        "--quiet-wait",
        type=float,
        default=0.0,
        metavar="SECONDS",
        help="wait so long before a pass for other programs to rest; 0",
    )
    parser.add_argument("--without-quire", action="store_true", help="the peers alone")
    parser.add_argument("--store", default=str(DEFAULT_ROOT), help=f"default: {DEFAULT_ROOT}")
    flags = parser.parse_args(words)
    try:
        flags.peers = parse_names(flags.against, lambda name: name in known, "--against")
        flags.names = parse_names(flags.workloads, lambda name: name in WORKLOADS, "--workloads")
    except ValueError as error:
        parser.error(str(error))
    if flags.reps < 1:
        parser.error(f"--reps is {flags.reps}; it must be at least 1")
    return flags


def main(words: list[str]) -> int:
    """Prints a table for each workload; 1 if an engine failed."""
    flags = parse(words)
    store = Store.at(flags.store)
    plan = Plan(
        store,
        flags.model,
        flags.format,
        flags.reps,
        flags.threads,
        flags.quiet_wait,
        time.strftime("%m%d-%H%M%S"),
    )
    names = flags.peers if flags.without_quire else ["quire", *flags.peers]
    probe = Probe(store.root, flags.threads)
    print(f"# {cpu_name()}, {flags.threads} threads, commit {commit()}, {probe()}", flush=True)
    tables, has_failed = [], False
    for workload in flags.names:
        runs = compare(plan, [PEERS[name] for name in names], workload, probe)
        write_summary(plan, workload, runs)
        tables.append(table(workload, runs))
        has_failed |= any(run.failure for run in runs)
    print(f"\n{flags.model}, {flags.format}\n\n" + "\n\n".join(tables))
    return 1 if has_failed else 0
