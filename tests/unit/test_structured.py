"""The front of structured outputs: what becomes a spec, what is remembered, and helpers that fail."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest

from quire.config.constraints import ConstraintOptions, read_constraint_options
from quire.config.demo import FOLDER
from quire.config.schema import GrammarConfig
from quire.frontend import structured
from quire.frontend.compile_helper import CompileHelper, HelperDiedError, HelperSettings
from quire.frontend.structured import StructuredOutputs
from quire.protocol.errors import InvalidRequestError
from quire.protocol.params import StructuredOutputsParams
from quire.protocol.request import GrammarSpec

SETTINGS = HelperSettings("guidance", str(Path(FOLDER) / "tokenizer.json"), 3072, (2,))


class Fake:
    """A helper that says what it is told to."""

    def __init__(self, *answers: str | Exception | None) -> None:
        self.answers = list(answers)
        self.asked: list[GrammarSpec] = []

    def check(self, spec: GrammarSpec) -> str | None:
        self.asked.append(spec)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def outputs(*answers: str | Exception | None, **options: bool) -> tuple[StructuredOutputs, Fake]:
    made = StructuredOutputs(ConstraintOptions(**options), SETTINGS)
    fake = Fake(*answers)
    made._free = [fake, fake]  # type: ignore[list-item]
    return made, fake


def test_specs_say_kind_text_and_options() -> None:
    made, _ = outputs(*[None] * 9)
    found = made.spec(StructuredOutputsParams(json={"type": "object", "é": 1}))
    assert (found.kind, found.text, found.options) == ("json", '{"type": "object", "é": 1}', {})
    assert made.spec(StructuredOutputsParams(choice=["a", "b"])).text == '["a", "b"]'
    assert made.spec(StructuredOutputsParams(json_object=True)).kind == "json_object"
    narrow = StructuredOutputsParams(
        json="{}", whitespace_pattern="[ ]?", disable_additional_properties=True
    )
    assert made.spec(narrow).options == {"whitespace": "[ ]?", "additional_properties": False}
    made, _ = outputs(None, disable_any_whitespace=True)
    assert made.spec(StructuredOutputsParams(json="{}")).options == {"whitespace": False}


def test_errors_name_the_field_that_the_user_has_written() -> None:
    origins = ("", "response_format", "text.format", "guided_json", "tools", "output_config.format")
    for origin in origins:
        made, _ = outputs("it is wrong")
        with pytest.raises(InvalidRequestError, match="cannot be used: it is wrong") as caught:
            made.spec(StructuredOutputsParams(json="{}", origin=origin))
        assert caught.value.param == (origin or "structured_outputs").split(".")[0]
        assert (origin or "structured_outputs.json") in str(caught.value)


def test_only_computing_counts_against_a_constraint() -> None:
    helper = CompileHelper(SETTINGS, deadline_s=0.3)
    assert helper.check(GrammarSpec(kind="json", text="{}")) is None
    assert helper.pid is not None
    os.kill(helper.pid, signal.SIGSTOP)
    threading.Timer(0.7, os.kill, (helper.pid, signal.SIGCONT)).start()
    assert helper.check(GrammarSpec(kind="json", text='{"type": "null"}')) is None
    os.kill(helper.pid, signal.SIGSTOP)
    with pytest.raises(TimeoutError):
        helper.check(GrammarSpec(kind="json", text='{"type": "array"}'))
    helper.close()


def test_outcomes_are_remembered_but_lost_helpers_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    made, fake = outputs(None, "it is wrong", TimeoutError(), HelperDiedError(), None)
    good, bad = StructuredOutputsParams(regex="a"), StructuredOutputsParams(regex="b")
    slow, lost = StructuredOutputsParams(regex="c"), StructuredOutputsParams(regex="d")
    for _ in range(3):
        made.spec(good)
        with pytest.raises(InvalidRequestError, match=r"structured_outputs\.regex .* it is wrong"):
            made.spec(bad)
        with pytest.raises(InvalidRequestError, match="too complex"):
            made.spec(slow)
    assert len(fake.asked) == 3
    with pytest.raises(InvalidRequestError, match="killed"):
        made.spec(lost)
    assert made.spec(lost).text == "d"
    monkeypatch.setattr(structured, "_REMEMBERED", 2)
    fake.answers = [None] * 5
    for text in ("e", "f", "g"):
        made.spec(StructuredOutputsParams(regex=text))
    assert len(made._known) == 2


def test_a_known_constraint_needs_no_thread() -> None:
    made, _ = outputs(None)
    wanted = StructuredOutputsParams(regex="a")
    later = made.spec_later(wanted)
    assert later is not None and later.result(5).text == "a"
    assert made.spec_later(wanted) is None
    made.close()


def test_a_helper_answers_one_at_a_time_and_comes_back() -> None:
    helper = CompileHelper(SETTINGS)
    answers: list[str | None] = []
    specs = [GrammarSpec(kind="regex", text=text) for text in ("a", "((", "b{2}")]
    threads = [threading.Thread(target=lambda s=s: answers.append(helper.check(s))) for s in specs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer is None for answer in answers) == [False, True, True]
    first = helper.pid
    helper.close()
    assert helper.pid is None
    assert helper.check(specs[0]) is None and helper.pid != first
    helper.close()


def test_a_helper_without_its_tokenizer_says_so(tmp_path: Path) -> None:
    helper = CompileHelper(HelperSettings("guidance", str(tmp_path / "none.json"), 8, (2,)))
    with pytest.raises(HelperDiedError, match="tokenizer"):
        helper.check(GrammarSpec(kind="regex", text="a"))
    assert helper.pid is None


def test_the_flag_and_its_old_name() -> None:
    assert read_constraint_options(GrammarConfig()).backend == "guidance"
    auto = GrammarConfig(structured_outputs_config={"backend": "auto", "disable_fallback": True})
    assert read_constraint_options(auto) == ConstraintOptions()
    assert (
        read_constraint_options(GrammarConfig(guided_decoding_backend="guidance")).backend
        == "guidance"
    )
