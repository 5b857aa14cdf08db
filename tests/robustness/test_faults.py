"""Faults of the machine, of the processes and of connections: what breaks, and that nothing else does.

What another file tests is named in `ELSEWHERE`; F and a number are a row of the fault matrix, E and a
number one of the table of inputs.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psutil
import pytest

from quire.config import env
from tests.e2e.killing import Server, serving
from tests.robustness.alive import CANARY, Alive
from tests.robustness.conftest import FLAGS

TESTS = Path(__file__).resolve().parents[1]
DEATH = "e2e/test_engine_death.py::"
ELSEWHERE: dict[int, str] = {
    1: DEATH + "test_streams_survive_three_kills",
    2: DEATH + "test_a_stopped_engine_is_replaced_and_health_is_honest",
    5: "worker/test_failures.py::test_a_raising_row_ends_alone",
    6: "server/test_errors.py::test_a_request_that_fails_is_500_and_its_neighbours_do_not_notice",
    7: "engine/test_simulation.py::test_the_load_reaches_the_rare_cases",
    8: "worker/test_failures.py::test_logits_that_are_not_finite_end_one_request_after_one_more_try",
    9: DEATH + "test_what_stands_still_is_replaced_and_what_moves_is_not",
    10: DEATH + "test_what_stands_still_is_replaced_and_what_moves_is_not",
    11: "e2e/test_slow_clients.py::test_leaving_at_any_stage_frees_everything",
    12: "e2e/test_slow_clients.py::test_those_who_do_not_read_cost_little_and_leave_nothing",
    13: "e2e/test_slow_clients.py::test_two_hundred_dawdlers_are_cut_off_and_nobody_waits_for_them",
    14: "server/test_admission.py::test_under_overload_those_admitted_wait_as_long_as_promised",
    16: "e2e/test_memory.py::test_a_server_under_load_stays_below_its_ledger",
    17: "server/test_launch.py::test_running_streams_finish_and_new_requests_do_not_start",
    22: "server/test_launch.py::test_a_port_in_use_is_a_clear_line_and_2",
    23: "unit/test_cli.py::test_a_wrong_word_is_two_lines_and_2",
    24: "unit/test_supervision.py::test_restarts_are_counted_within_ten_minutes",
    25: "models/test_hub.py::test_each_failure_says_what_to_do",
    26: "unit/test_hardware.py::test_quota_of_a_parent_group_limits_the_cores",
    29: "e2e/test_structured_outputs.py::test_a_helper_that_is_killed_harms_at_most_its_request",
    30: "server/test_responses_store.py::test_two_servers_may_share_a_file",
}
NOT_SERVED = {
    3: "one worker, inside the engine",
    20: "no cache on disk",
    27: "adapters are not served",
    28: "one model to a server",
    34: "needs a GPU: tests/e2e/test_gpu.py",
}


def _raw(server: Server, data: bytes, *, half: bool = False, timeout_s: float = 10.0) -> bytes:
    """What comes back until the server closes or is silent."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    parts = []
    with socket.create_connection((host, int(port)), timeout=timeout_s) as one:
        one.sendall(data)
        if half:
            one.shutdown(socket.SHUT_WR)
        try:
            while part := one.recv(1 << 16):
                parts.append(part)
        except (TimeoutError, ConnectionResetError):
            pass
    return b"".join(parts)


def _post(body: dict[str, object], *lines: str) -> bytes:
    data = json.dumps(body).encode()
    head = ["POST /v1/completions HTTP/1.1", "Host: localhost", f"Content-Length: {len(data)}"]
    return "\r\n".join([*head, "Content-Type: application/json", *lines, "", ""]).encode() + data


SHORT: dict[str, object] = {"prompt": "The river", "max_tokens": 2, "temperature": 0}


def test_odd_ways_to_speak_http(server: Server, alive: Alive) -> None:
    """E15: what is no HTTP/1.1 is refused or closed; what is, works."""
    text = b"HTTP/1.1 200 OK"
    close = "Connection: close"
    assert text in _raw(server, _post(SHORT, "Expect: 100-continue", close))
    assert _raw(server, _post(SHORT) + _post(SHORT, close)).count(text) == 2
    after = _raw(server, b"GET /v1/nope HTTP/1.1\r\nHost: localhost\r\n\r\n" + _post(SHORT, close))
    assert b" 404 " in after and text in after
    for odd in (
        b"GET /health\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"GET /health HTTP/1.1\r\nHost : localhost\r\n\r\n",
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nA: b\r\n c: d\x00\r\n\r\n",
    ):
        answer = _raw(server, odd)
        assert not answer or re.match(rb"HTTP/1.1 4\d\d ", answer), (odd, answer[:200])
        assert b"Traceback" not in answer and b"text/html" not in answer
    alive.check()


def test_a_client_that_half_closes_gets_its_answer_or_frees_its_place(
    server: Server, alive: Alive
) -> None:
    """E72: nothing of it stays behind."""
    for body in (SHORT, SHORT | {"stream": True, "max_tokens": 40}):
        _raw(server, _post(body, "Connection: close"), half=True)
    alive.check()


def test_signals_that_are_no_end(server: Server, alive: Alive) -> None:
    """F18: a broken pipe, and a terminal that went away while nobody had one."""
    server.process.send_signal(signal.SIGPIPE)
    time.sleep(0.2)
    assert server.process.poll() is None
    alive.check()


def test_metrics_are_read_all_the_time(server: Server, alive: Alive) -> None:
    """F33: a scrape every few milliseconds takes nothing away."""
    stop = threading.Event()
    statuses: list[int] = []

    def scrape() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                statuses.append(client.get(f"{server.url}/metrics").status_code)
                time.sleep(0.01)

    threads = [threading.Thread(target=scrape) for _ in range(4)]
    for one in threads:
        one.start()
    expected = alive.before.canary
    for _ in range(20):
        answer = httpx.post(f"{server.url}/v1/completions", json=CANARY, timeout=60)
        assert answer.json()["choices"][0] == expected
    stop.set()
    for one in threads:
        one.join()
    assert statuses and set(statuses) == {200}
    alive.check()


def test_as_many_connections_as_it_has_files() -> None:
    """F15: beyond its limit of files new connections wait or are closed; afterwards all is as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with serving(*FLAGS, "--keep-alive-timeout", "1", "--header-timeout", "1") as server:
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (64, before[1]))
        host, _, port = server.url.removeprefix("http://").partition(":")
        held = []
        for _ in range(200):
            one = socket.socket()
            one.settimeout(0.2)
            with contextlib.suppress(OSError):
                one.connect((host, int(port)))
            held.append(one)
        time.sleep(1)
        front = psutil.Process(server.process.pid)
        front.cpu_percent()
        time.sleep(1)
        assert front.cpu_percent() < 90
        for one in held:
            one.close()
        deadline_s = time.monotonic() + 20
        while True:
            try:
                answer = httpx.post(f"{server.url}/v1/completions", json=SHORT, timeout=10)
                break
            except httpx.TransportError:
                assert time.monotonic() < deadline_s
        assert answer.status_code == 200


def test_the_engine_ends_with_its_front() -> None:
    """F4: no process, no socket and no shared memory is left behind a front that was killed."""
    with serving(*FLAGS) as server:
        engine = psutil.Process(server.engine_pid())
        folders = {
            Path(one.laddr).parent
            for one in psutil.Process(server.process.pid).net_connections("unix")
            if isinstance(one.laddr, str) and one.laddr.startswith("/")
        }
        assert folders
        os.kill(server.process.pid, signal.SIGKILL)
        engine.wait(10)
        assert not [folder for folder in folders if folder.exists()]
        port = int(server.url.rpartition(":")[2])
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", port))


def test_nobody_reads_the_log() -> None:
    """F32: a pipe that is full, or closed, holds nothing up."""
    command = [sys.executable, "-m", "quire", "serve", "--port", "0", "--responses-store", "none"]
    read, write = os.pipe()
    process = subprocess.Popen(command, stdout=write, stderr=write, env=env.for_child())
    os.close(write)
    text = b""
    while not (found := re.search(rb"http://127\.0\.0\.1:\d+", text)):
        text += os.read(read, 4096)
    url = found[0].decode()
    try:
        _wait(url)
        os.close(read)
        with ThreadPoolExecutor(4) as pool:
            ask = lambda _: httpx.post(f"{url}/v1/completions", json=SHORT, timeout=30).status_code  # noqa: E731
            assert set(pool.map(ask, range(100))) == {200}
        assert httpx.get(f"{url}/v1/nope").status_code == 404
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(40)


def _wait(url: str) -> None:
    deadline_s = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


SURROUNDINGS = [
    {"LANG": "C", "LC_ALL": "C", "PYTHONHASHSEED": "0", "PYTHONOPTIMIZE": "2", "TZ": "Nowhere/City"},
    {"HOME": "/nonexistent", "XDG_CACHE_HOME": "", "OMP_NUM_THREADS": "1", "PYTHONUTF8": "0"},
]  # fmt: skip


@pytest.fixture(scope="module")
def usual() -> Iterator[object]:
    with serving(*FLAGS) as server:
        yield httpx.post(f"{server.url}/v1/completions", json=CANARY).json()["choices"][0]


@pytest.mark.parametrize("variables", SURROUNDINGS, ids=["locale", "home"])
def test_odd_surroundings(variables: dict[str, str], usual: object) -> None:
    """F31, E94 and E97: no home, another locale, no asserts: it starts, and the answers are the same."""
    with serving(*FLAGS, **variables) as server:
        answer = httpx.post(f"{server.url}/v1/completions", json=CANARY, timeout=60)
        assert answer.json()["choices"][0] == usual
        text = httpx.post(
            f"{server.url}/tokenize", json={"prompt": "é 東京 🙂", "return_token_strs": True}
        )
        assert text.status_code == 200


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    """F19: a disk that takes no more: answers go on, and what could not be kept is told or left out."""
    store = tmp_path / "responses.db"
    with serving(
        *FLAGS[:3], "--responses-store", str(store), "--batch-dir", str(tmp_path)
    ) as server:
        ask = {"input": "Hello", "max_output_tokens": 2}
        first = httpx.post(f"{server.url}/v1/responses", json=ask, timeout=60)
        assert first.status_code == 200
        size = sum(one.stat().st_size for one in tmp_path.iterdir())
        # A file may grow no further than it is: every write behind that fails as on a full disk.
        limit = (size // 4096) * 4096
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (limit, limit))
        statuses = [
            httpx.post(
                f"{server.url}/v1/responses", json=ask | {"input": "x" * 3000}, timeout=60
            ).status_code
            for _ in range(30)
        ]
        assert set(statuses) <= {200, 500, 503}, statuses
        assert server.process.poll() is None, server.log()
        answer = httpx.post(f"{server.url}/v1/completions", json=SHORT, timeout=60)
        assert answer.status_code == 200
        kept = httpx.get(f"{server.url}/v1/responses/{first.json()['id']}")
        assert kept.status_code == 200
        upload = httpx.post(
            f"{server.url}/v1/files",
            files={"file": ("a.jsonl", b"x" * (1 << 20))}, data={"purpose": "batch"}, timeout=60,
        )  # fmt: skip
        assert upload.status_code in (200, 500, 503, 507), upload.text
        assert httpx.get(f"{server.url}/health").status_code == 200


def test_every_fault_is_tested_somewhere() -> None:
    here = {int(one) for one in re.findall(r"\bF(\d+)\b", Path(__file__).read_text())}
    here |= {
        int(one)
        for one in re.findall(r"\bF(\d+)\b", (TESTS / "robustness/test_starts.py").read_text())
    }
    assert sorted(set(range(1, 35)) - here - ELSEWHERE.keys() - NOT_SERVED.keys()) == []
    for place in ELSEWHERE.values():
        path, _, name = place.partition("::")
        assert f"def {name}(" in (TESTS / path).read_text(), place
