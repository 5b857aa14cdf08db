"""An engine that starts in its caller's process."""

from __future__ import annotations

import gc

import pytest

from quire.config.args import EngineArgs
from quire.engine.client import InProcessClient


@pytest.mark.parametrize("is_enabled", [True, False])
def test_the_collector_rests_while_it_loads_and_is_then_as_it_was(
    is_enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def loaded(client: InProcessClient) -> None:
        seen.append(gc.isenabled())
        raise KeyError

    monkeypatch.setattr(InProcessClient, "_loaded", loaded)
    monkeypatch.setattr("quire.engine.client.load_ahead", lambda: None)
    was_enabled = gc.isenabled()
    (gc.enable if is_enabled else gc.disable)()
    try:
        with pytest.raises(KeyError):
            InProcessClient(EngineArgs().to_settings())
        assert seen == [False] and gc.isenabled() == is_enabled
    finally:
        (gc.enable if was_enabled else gc.disable)()
