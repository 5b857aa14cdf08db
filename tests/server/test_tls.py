"""TLS: a server with a certificate, one that asks for the client's, and files that cannot work."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from quire.config.server import ServerConfig
from quire.protocol.errors import SettingsError
from quire.server.launch import check
from tests.server.test_launch import Process

if shutil.which("openssl") is None:
    pytest.skip("no openssl to make certificates with", allow_module_level=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A key and a certificate of 127.0.0.1 that signs itself, another pair, and a locked key."""
    root = tmp_path_factory.mktemp("tls")
    for name in ("server", "client"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", f"/CN={name}",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", f"{name}.key", "-out", f"{name}.pem"],
            cwd=root, check=True, capture_output=True,
        )  # fmt: skip
    subprocess.run(
        ["openssl", "rsa", "-aes256", "-passout", "pass:open", "-in", "server.key", "-out", "locked.key"],
        cwd=root, check=True, capture_output=True,
    )  # fmt: skip
    return {path.name: str(path) for path in root.iterdir()}


class TlsProcess(Process):
    """A scripted server that is reached by https."""

    def wait_ready(self) -> TlsProcess:
        return self


@pytest.fixture
def start(folder: Path, tmp_path: Path) -> Iterator[Callable[..., str]]:
    made: list[Process] = []
    copy = shutil.copytree(folder, tmp_path / "model")

    def run(*flags: str) -> str:
        made.append(TlsProcess(copy, *flags))
        return made[-1].url

    yield run
    for one in made:
        one.process.kill()
        one.process.wait()


def trusting(files: dict[str, str], *own: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=files["server.pem"])
    if own:
        context.load_cert_chain(*own)
    return context


def test_the_server_speaks_tls_and_asks_for_certificates(
    start: Callable[..., str], files: dict[str, str]
) -> None:
    pair = ("--ssl-keyfile", files["server.key"], "--ssl-certfile", files["server.pem"])
    url = start(*pair)
    assert url.startswith("https://")
    assert httpx.get(f"{url}/health", verify=trusting(files)).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{url}/health")
    with pytest.raises(httpx.TransportError):
        httpx.get(url.replace("https", "http") + "/health")
    asking = start(*pair, "--ssl-ca-certs", files["client.pem"], "--ssl-cert-reqs", "2")
    known = trusting(files, files["client.pem"], files["client.key"])
    assert httpx.get(f"{asking}/health", verify=known).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{asking}/health", verify=trusting(files))


@pytest.mark.parametrize(("given", "message"), [
    ({"ssl_keyfile": "server.key"}, "together"),
    ({"ssl_cert_reqs": 2}, "need --ssl-keyfile"),
    ({"ssl_ca_certs": "client.pem"}, "need --ssl-keyfile"),
    ({"ssl_keyfile": "nowhere", "ssl_certfile": "server.pem"}, "TLS cannot be set up"),
    ({"ssl_keyfile": "client.key", "ssl_certfile": "server.pem"}, "TLS cannot be set up"),
    ({"ssl_keyfile": "locked.key", "ssl_certfile": "server.pem"}, "TLS cannot be set up"),
    ({"ssl_keyfile": "server.key", "ssl_certfile": "server.pem", "ssl_cert_reqs": 3}, "0, 1 or 2"),
    ({"ssl_keyfile": "server.key", "ssl_certfile": "server.pem", "ssl_cert_reqs": 1}, "needs --ssl-ca-certs"),
    ({"ssl_keyfile": "server.key", "ssl_certfile": "server.pem", "ssl_ciphers": "none"}, "TLS cannot be set"),
])  # fmt: skip
def test_what_cannot_work_is_said_before_anything_starts(
    files: dict[str, str], given: dict[str, Any], message: str
) -> None:
    config = ServerConfig(**{name: files.get(value, value) for name, value in given.items()})
    with pytest.raises(SettingsError, match=message):
        check(config)


def test_new_certificates_act_without_a_restart(
    start: Callable[..., str], files: dict[str, str], tmp_path: Path
) -> None:
    pair = [shutil.copy(files[f"server.{end}"], tmp_path) for end in ("key", "pem")]
    url = start(
        "--ssl-keyfile", pair[0], "--ssl-certfile", pair[1], "--enable-ssl-refresh"
    )  # fmt: skip
    host, port = url.removeprefix("https://").split(":")

    def shown() -> str:
        return ssl.get_server_certificate((host, int(port)))

    first = shown()
    Path(pair[1]).write_text("nonsense")
    time.sleep(1.5)
    assert shown() == first, "a file that cannot be used took the old one's place"
    for name, path in zip(("client.key", "client.pem"), pair, strict=True):
        shutil.copy(files[name], path)
    deadline = time.monotonic() + 10
    while shown() == first and time.monotonic() < deadline:
        time.sleep(0.1)
    assert shown().split() == Path(files["client.pem"]).read_text().split()


def test_following_needs_files() -> None:
    with pytest.raises(SettingsError, match="--enable-ssl-refresh"):
        check(ServerConfig(enable_ssl_refresh=True))
