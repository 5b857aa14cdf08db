"""`quire chat` and `quire complete` against a small server; `quire collect-env`; the list of commands."""

from __future__ import annotations

import io
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from quire.bench.wire import Delta
from quire.cli import collect_env, terminal
from quire.cli.main import main
from quire.cli.remote import Reply
from quire.config import env
from tests.unit.fake_server import FakeServer, running

ROOT = Path(__file__).resolve().parents[2]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as made:
        yield made


def typed(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


# --- one text


def test_quick_chat_streams_one_reply(server: FakeServer, capsys: Capture) -> None:
    words = ["chat", "--url", server.url, "--system-prompt", "be brief", "-q", "say this back"]
    assert main([*words, "--max_tokens", "9"]) == 0
    out = capsys.readouterr()
    assert out.out == "say this back \n" and out.err == ""
    path, body, _ = server.requests[0]
    assert (
        path == "/v1/chat/completions" and body["model"] == "fake-model" and body["stream"] is True
    )
    assert body["max_completion_tokens"] == 9
    assert body["messages"] == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "say this back"},
    ]


def test_quick_completion_with_a_named_model_and_stats(server: FakeServer, capsys: Capture) -> None:
    words = ["complete", "--url", server.url + "/", "--model-name", "mine", "--stats"]
    assert main([*words, "--quick", "a b c d", "--max-tokens", "3"]) == 0
    out = capsys.readouterr()
    assert out.out == "a b c \n"
    assert out.err.startswith("[TTFT ") and "(3 tokens in" in out.err
    path, body, _ = server.requests[0]
    assert (path, body["model"], body["prompt"]) == ("/v1/completions", "mine", "a b c d")


def test_line_separators_inside_the_text_are_kept(server: FakeServer, capsys: Capture) -> None:
    assert main(["chat", "--url", server.url, "-q", "x y"]) == 0
    assert capsys.readouterr().out == "x y \n"
    monkey = 'data: {"choices":[{"text":"a\u2028b\x85c"}]}\n\n'
    from quire.bench.wire import EventReader

    (data,) = EventReader().feed(monkey.encode())
    assert Delta(data).text == "a\u2028b\x85c"


# --- lines


def test_chat_keeps_its_history_and_skips_empty_lines(
    server: FakeServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "first\n\n  \nsecond one\n")
    assert main(["chat", "--url", server.url]) == 0
    assert capsys.readouterr().out == "first \nsecond one \n"
    assert [m["content"] for m in server.requests[-1][1]["messages"]] == [
        "first",
        "first ",
        "second one",
    ]
    assert [m["role"] for m in server.requests[-1][1]["messages"]] == ["user", "assistant", "user"]


def test_a_refused_line_leaves_the_history_and_the_program(
    server: FakeServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "one\nrefuse me\ntwo\n")
    assert main(["chat", "--url", server.url]) == 0
    out = capsys.readouterr()
    assert out.out == "one \ntwo \n" and "HTTP 400: refused as asked" in out.err
    assert [m["content"] for m in server.requests[-1][1]["messages"]] == ["one", "one ", "two"]


def test_completions_have_no_history(
    server: FakeServer, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, "one\ntwo\n")
    assert main(["complete", "--url", server.url]) == 0
    assert [body["prompt"] for _, body, _ in server.requests] == ["one", "two"]
    assert capsys.readouterr().out == "one \ntwo \n"


def test_ctrl_c_ends_the_reply_and_not_the_program() -> None:
    with running(pace_s=0.2) as server:
        program = subprocess.Popen(
            [sys.executable, "-u", "-m", "quire", "chat", "--url", server.url],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
            # A shell's background jobs ignore the signal, and so would what they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert program.stdin is not None and program.stdout is not None
        program.stdin.write("one " * 200 + "\n")
        program.stdin.flush()
        assert program.stdout.read(4) == "one "
        program.send_signal(signal.SIGINT)
        out, err = program.communicate("short\n", timeout=60)
        assert program.returncode == 0, err
        assert out.endswith("\nshort \n") and out.count("one") < 100
        history = server.requests[-1][1]["messages"]
        assert [m["role"] for m in history] == ["user", "assistant", "user"]
        assert history[1]["content"].startswith("one ") and len(history[1]["content"]) < 500


def test_show_puts_thinking_before_the_answer_and_ends_on_ctrl_c(capsys: Capture) -> None:
    closed = []

    def pieces() -> Generator[Delta, None, None]:
        try:
            yield Delta('{"choices":[{"delta":{"reasoning_content":"hm"}}]}')
            yield Delta('{"choices":[{"delta":{"content":"yes"}}]}')
            raise KeyboardInterrupt
        finally:
            closed.append(True)

    assert terminal.show(pieces(), Reply(), stats=False) is False
    assert capsys.readouterr().out == "hm\nyes\n" and closed == [True]


# --- what goes wrong


@pytest.mark.parametrize("command", ["chat", "complete"])
def test_no_server_is_one_line_and_1(command: str, capsys: Capture) -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        assert main([command, "--url", url, "-q", "hi"]) == 1
    err = capsys.readouterr().err
    assert (
        f"no server answers at {url}" in err and "quire serve" in err and len(err.splitlines()) == 1
    )


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "nonsense"])
def test_a_wrong_address_is_named(url: str, capsys: Capture) -> None:
    assert main(["chat", "--url", url, "-q", "hi"]) == 1
    assert "is no address" in capsys.readouterr().err


def test_a_key_from_the_flag_or_the_environment(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(key="right") as server:
        assert main(["chat", "--url", server.url, "-q", "hi"]) == 1
        assert "HTTP 401: the API key is missing or wrong" in capsys.readouterr().err
        monkeypatch.setenv("OPENAI_API_KEY", "right")
        assert main(["chat", "--url", server.url, "-q", "hi"]) == 0
        assert main(["chat", "--url", server.url, "-q", "hi", "--api-key", "wrong"]) == 1
        assert "right" not in capsys.readouterr().err.replace("wrong", "")


def test_a_broken_stream_and_an_empty_list_are_errors(capsys: Capture) -> None:
    with running(break_off=True) as server:
        assert main(["complete", "--url", server.url, "-q", "a b"]) == 1
        out = capsys.readouterr()
        assert out.out == "a b \n" and "broke off" in out.err
    with running(models=[]) as server:
        assert main(["complete", "--url", server.url, "-q", "a b"]) == 1
        assert "lists no model" in capsys.readouterr().err


# --- the list of commands


COMMANDS = ["chat", "complete", "collect-env", "ops", "bench", "models"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_and_a_wrong_word(command: str, capsys: Capture) -> None:
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as ended:
        assert ended.code == 0
    assert f"usage: quire {command}" in capsys.readouterr().out
    with pytest.raises(SystemExit) as refused:
        sys.exit(main([command, "--no-such-flag"]))
    assert refused.value.code == 2
    assert "no-such-flag" in capsys.readouterr().err


def test_the_usage_names_every_command(capsys: Capture) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command} " in text for command in [*COMMANDS, "serve"])


def test_talking_loads_no_torch() -> None:
    code = "import sys, quire.cli.chat, quire.cli.complete; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


# --- collect-env


def test_the_report_hides_secrets(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    monkeypatch.setenv("VLLM_API_KEY", "sk-abcdef")
    monkeypatch.setenv("HF_ENDPOINT", "https://me:abcdef@hub.example/x")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("MY_PASSWORD", "abcdef")
    assert main(["collect-env", "--json"]) == 0
    text = capsys.readouterr().out
    assert "abcdef" not in text
    found = json.loads(text)
    assert found["Environment"]["HF_TOKEN"] == "(hidden)"
    assert found["Environment"]["HF_ENDPOINT"] == "https://(hidden)@hub.example/x"
    assert found["Environment"]["OMP_NUM_THREADS"] == "3"
    assert "MY_PASSWORD" not in found["Environment"]
    assert found["Libraries"]["numpy"] != "not installed" and found["Machine"]["isa"]
    assert found["Torch"]["version"] == found["Libraries"]["torch"]


def test_the_report_as_text_has_every_section(capsys: Capture) -> None:
    assert main(["collect-env"]) == 0
    text = capsys.readouterr().out
    assert [title for title, _ in collect_env.report()] == [
        line
        for line, rule in zip(text.splitlines(), text.splitlines()[1:])
        if rule and not rule.strip("-")
    ]


def test_tokenizer_switches_are_not_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    assert env.reported()["TOKENIZERS_PARALLELISM"] == "false"
