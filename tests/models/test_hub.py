"""Models by their name on the hub, against a hub on a loopback port: what is fetched, kept and refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from quire.config.args import EngineArgs
from quire.config.schema import ModelConfig, Settings
from quire.models.loading.hub import HubName, check_name, hub_name, with_local_folders
from quire.protocol.errors import SettingsError
from tests.hub import Hub, Repository

ROOT = Path(__file__).parents[2]

# huggingface_hub reads its variables when it is imported, so that each look needs its own process.
LOOK = """
import json, sys
from pathlib import Path
from quire.config.args import EngineArgs
from quire.models.loading.hub import with_local_folders
from quire.protocol.errors import QuireError
try:
    settings = with_local_folders(EngineArgs(**json.loads(sys.argv[1])).to_settings())
    model = settings.model
    found = {"model": model.model, "tokenizer": model.tokenizer, "names": model.served_model_name,
             "token": model.hf_token, "files": sorted(p.name for p in Path(model.model).iterdir())}
except QuireError as error:
    found = {"error": str(error), "kind": type(error).__name__}
found["modules"] = [name for name in ("torch", "transformers") if name in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folders(
    checkpoint: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A checkpoint as repositories have it, the same with another context, and one without weights."""
    root = tmp_path_factory.mktemp("repositories")
    main = Path(shutil.copytree(checkpoint("llama"), root / "main"))
    (main / "README.md").write_text("not needed")
    (main / "pytorch_model.bin").write_bytes(b"not wanted")
    (main / "original").mkdir()
    (main / "original" / "consolidated.safetensors").write_bytes(b"another form")
    other = Path(shutil.copytree(main, root / "other"))
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 77}))
    bare = root / "bare"
    bare.mkdir()
    shutil.copy(main / "config.json", bare)
    quants = root / "quants"
    quants.mkdir()
    for kind in ("Q4_K_M", "Q4_K_S", "Q8_0"):
        _gguf_file(quants / f"tiny-{kind}.gguf")
    (quants / "mmproj-Q8_0.gguf").write_bytes(b"not wanted")
    return {"main": main, "other": other, "bare": bare, "quants": quants}


def _gguf_file(path: Path) -> None:
    """A file with all settings of a small model, and one matrix."""
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("none")
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def hub(folders: dict[str, Path]) -> Iterator[Hub]:
    main, other, bare = folders["main"], folders["other"], folders["bare"]
    made = Hub({
        "org/tiny": Repository({"main": main, "v2": other}),
        "org/private": Repository({"main": main}, token="hf_right"),
        "org/gated": Repository({"main": main}, token="hf_right", is_gated=True),
        "org/slow": Repository({"main": main}, hangs=True),
        "org/bare": Repository({"main": bare}),
        "org/tiny-GGUF": Repository({"main": folders["quants"]}),
    })  # fmt: skip
    yield made
    made.close()


@pytest.fixture
def look(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """`look(url, {settings}, VARIABLE=…)`: what the settings become in a process of their own."""

    def run(url: str, settings: dict[str, Any], **variables: str) -> dict[str, Any]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        given = {"HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
        given["QUIRE_CACHE_DIR"] = str(tmp_path / "cache")
        done = subprocess.run(
            [sys.executable, "-c", LOOK, json.dumps(settings)], cwd=ROOT, timeout=60, check=True,
            capture_output=True, text=True, env={**clean, **given, **variables},
        )  # fmt: skip
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    return run


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("org/name", HubName("org/name", None)),
        ("Org-1/Name.v2_x:main", HubName("Org-1/Name.v2_x", "main")),
        ("org/name:refs/pr/1", HubName("org/name", "refs/pr/1")),
        ("org/name-GGUF:Q4_K_M", HubName("org/name-GGUF", None, "Q4_K_M")),
        ("org/name-GGUF:iq4_xs", HubName("org/name-GGUF", None, "IQ4_XS")),
        ("name", None),
        ("./org/name", None),
        ("/org/name", None),
        ("../name", None),
        ("~/name", None),
        ("a/b/c", None),
        ("org/name:", None),
        ("", None),
    ],
)
def test_what_is_a_hub_name(text: str, expected: HubName | None) -> None:
    assert hub_name(text) == expected


def test_a_folder_is_never_a_hub_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert hub_name("org/name") is None
    settings = Settings(model=ModelConfig(model="org/name"))
    assert with_local_folders(settings) is settings
    with_token = with_local_folders(Settings(model=ModelConfig(model="org/name", hf_token="hf_x")))
    assert with_token.model.hf_token is None


def test_what_can_be_neither_is_refused_without_a_look_at_the_network() -> None:
    check_name(ModelConfig(model="org/name"))
    with pytest.raises(SettingsError, match=r"no folder 'nowhere'.*org/name"):
        check_name(ModelConfig(model="nowhere"))


def test_only_what_is_needed_is_fetched_once_and_then_known_offline(
    hub: Hub, look: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    found = look(hub.url, {"model": "org/tiny"})
    needed = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert needed <= set(found["files"]) and not found["modules"]
    assert hub.downloaded() == set(found["files"])
    assert not {"README.md", "pytorch_model.bin", "original"} & set(found["files"])
    assert found["names"] == ["org/tiny"]
    assert Path(found["model"]).is_relative_to(tmp_path / "home")
    hub.requests.clear()
    assert look(hub.url, {"model": "org/tiny"})["model"] == found["model"]
    assert not hub.downloaded()
    hub.requests.clear()
    again = look(hub.url, {"model": "org/tiny"}, HF_HUB_OFFLINE="1")
    assert again["model"] == found["model"] and not hub.requests


def test_a_revision_may_stand_in_the_name_or_beside_it(
    hub: Hub, look: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    where = {"download_dir": str(tmp_path / "kept")}
    named = look(hub.url, {"model": "org/tiny:v2", **where})
    beside = look(hub.url, {"model": "org/tiny", "revision": "v2", **where})
    main = look(hub.url, {"model": "org/tiny", **where})
    assert named["model"] == beside["model"] != main["model"]
    assert Path(named["model"]).is_relative_to(tmp_path / "kept")
    config = json.loads((Path(named["model"]) / "config.json").read_text())
    assert config["max_position_embeddings"] == 77
    two = look(hub.url, {"model": "org/tiny:v2", "revision": "main", **where})
    assert two["kind"] == "SettingsError" and "two revisions" in two["error"]
    none = look(hub.url, {"model": "org/tiny:v9", **where})
    assert none["kind"] == "ModelLoadError" and "no branch, tag or commit 'v9'" in none["error"]


def test_the_tokenizer_may_come_from_another_repository(
    hub: Hub, look: Callable[..., dict[str, Any]]
) -> None:
    found = look(hub.url, {"model": "org/bare", "tokenizer": "org/tiny:v2", "load_format": "dummy"})
    assert found["files"] == ["config.json"]
    assert (Path(found["tokenizer"]) / "tokenizer.json").is_file()
    assert not (Path(found["tokenizer"]) / "model.safetensors").exists()


@pytest.mark.parametrize("name", ["org/private", "org/gated"])
def test_a_token_opens_what_is_closed_and_goes_no_further(
    hub: Hub, look: Callable[..., dict[str, Any]], name: str
) -> None:
    closed = look(hub.url, {"model": name})
    assert closed["kind"] == "ModelLoadError" and "--hf-token or HF_TOKEN" in closed["error"]
    assert ("is gated" in closed["error"]) == (name == "org/gated")
    wrong = look(hub.url, {"model": name, "hf_token": "hf_wrong"})
    assert wrong["kind"] == "ModelLoadError" and "hf_wrong" not in wrong["error"]
    given = look(hub.url, {"model": name, "hf_token": "hf_right"})
    assert "config.json" in given["files"] and given["token"] is None
    assert {token for _, path, token in hub.requests if "/resolve/" in path} == {"hf_right"}
    by_variable = look(hub.url, {"model": name}, HF_TOKEN="hf_right")
    assert by_variable["model"] == given["model"]


def test_each_failure_says_what_to_do(hub: Hub, look: Callable[..., dict[str, Any]]) -> None:
    unknown = look(hub.url, {"model": "org/nothing"})
    assert (
        "no folder 'org/nothing' here and no model 'org/nothing' at " + hub.url in unknown["error"]
    )
    bare = look(hub.url, {"model": "org/bare"})
    assert "org/bare has no safetensors files" in bare["error"]
    offline = look(hub.url, {"model": "org/private"}, HF_HUB_OFFLINE="1")
    assert "not in the local cache" in offline["error"] and "HF_HUB_OFFLINE" in offline["error"]
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
        away = look(nobody, {"model": "org/tiny"})
    assert f"{nobody} cannot be reached" in away["error"]
    for found in (unknown, bare, offline, away):
        assert found["kind"] == "ModelLoadError" and "\n" not in found["error"]


ANSWER = """
import json, sys
from quire import LLM, SamplingParams
with LLM(sys.argv[1], threads=1, max_model_len=64) as llm:
    (answer,) = llm.generate("The river", SamplingParams(max_tokens=4, seed=1), use_tqdm=False)
    print(json.dumps([answer.outputs[0].token_ids, llm.llm_engine.client.settings.model.model]))
"""


@pytest.mark.slow
def test_the_front_and_the_engine_process_read_the_same_folder(
    hub: Hub, folders: dict[str, Path], tmp_path: Path
) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    hubs = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}

    def answer(model: str, **variables: str) -> list[Any]:
        done = subprocess.run(
            [sys.executable, "-c", ANSWER, model], cwd=ROOT, timeout=120, check=True,
            capture_output=True, text=True, env=clean | hubs | variables,
        )  # fmt: skip
        found: list[Any] = json.loads(done.stdout)
        return found

    ids, folder = answer("org/tiny", QUIRE_ENGINE_PROCESS="1")
    assert Path(folder).is_relative_to(tmp_path)
    assert ids == answer(str(folders["main"]))[0]
    fetched = [path for method, path, _ in hub.requests if method == "GET" and "/resolve/" in path]
    assert len(fetched) == len(set(fetched)), "one process fetches, and each file once"


def test_a_server_ends_at_once_while_it_downloads(hub: Hub, tmp_path: Path) -> None:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    hubs = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0"}
    server = subprocess.Popen(
        [sys.executable, "-m", "quire", "serve", "org/slow", "--port", "0"],
        cwd=ROOT, env=clean | hubs, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline_s = time.monotonic() + 60
        while "config.json" not in hub.downloaded():
            assert time.monotonic() < deadline_s and server.poll() is None
            time.sleep(0.05)
        server.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert server.wait(20) == 0
        assert time.monotonic() - began_s < 15
    finally:
        server.kill()
        server.communicate()


def test_a_path_object_is_a_folder_too(tmp_path: Path) -> None:
    settings = EngineArgs(tmp_path).to_settings()  # type: ignore[arg-type]
    assert with_local_folders(settings).model.model == str(tmp_path)


def test_a_kind_of_gguf_file_is_found_by_its_name(
    hub: Hub, look: Callable[..., dict[str, Any]]
) -> None:
    found = look(hub.url, {"model": "org/tiny-GGUF:Q4_K_M"})
    assert found["files"] == ["config.json", "model.gguf"]
    assert found["names"] == ["org/tiny-GGUF:Q4_K_M"]
    assert (Path(found["model"]) / "model.gguf").readlink().name == "tiny-Q4_K_M.gguf"
    assert not [path for _, path, _ in hub.requests if "Q8_0" in path and "resolve" in path]
    missing = look(hub.url, {"model": "org/tiny-GGUF:Q5_K_M"})
    assert "no GGUF file of the kind Q5_K_M" in missing["error"]
