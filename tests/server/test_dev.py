"""/server_info: only where it was asked for, and without secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from quire.config.cli import read_serve
from quire.config.schema import ModelConfig, Settings
from tests.server.scripted import Scripted

Serve = Callable[..., Any]


def test_it_is_not_there_unless_asked_for(serve: Serve) -> None:
    async def test(server: Scripted) -> None:
        assert (await server.http.get("/server_info")).status_code == 404

    serve(test)


def test_settings_environment_and_machine_without_secrets(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_environment")
    monkeypatch.setenv("VLLM_API_KEY", "key_environment")

    async def test(server: Scripted) -> None:
        headers = {"Authorization": "Bearer key_flag"}
        assert (await server.http.get("/server_info")).status_code == 401
        answer = await server.http.get("/server_info?config_format=json", headers=headers)
        found = answer.json()
        assert list(found) == ["vllm_config", "vllm_env", "system_env"]
        assert found["vllm_config"]["model"]["served_model_name"] == ["tiny"]
        assert found["vllm_config"]["server"]["max_queue_wait"] == 10.0
        assert found["vllm_env"]["HF_TOKEN"] == "(hidden)"
        assert found["system_env"]["msgspec"][0].isdigit()
        text = await server.http.get("/server_info", headers=headers)
        assert isinstance(text.json()["vllm_config"], str)
        for one in (answer, text):
            assert not any(word in one.text for word in ("hf_flag", "hf_environment", "key_"))
        wrong = await server.http.get("/server_info?config_format=xml", headers=headers)
        assert wrong.status_code == 400 and wrong.json()["error"]["param"] == "config_format"

    settings = Settings(model=ModelConfig(hf_token="hf_flag"))
    serve(test, settings=settings, server_dev_mode=True, api_key=["key_flag"])


def test_the_variable_is_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_SERVER_DEV_MODE", "1")
    monkeypatch.setenv("VLLM_LOG_STATS_INTERVAL", "2.5")
    options = read_serve(["model"])
    assert options.server.server_dev_mode
    assert options.settings.observability.log_stats_interval == 2.5
