"""A hub on a loopback port: repositories that are folders, with revisions, tokens, and a count of requests.

It speaks as much of the protocol as huggingface_hub needs to download a snapshot.
"""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit


@dataclass
class Repository:
    """One repository. `revisions` are folders by branch or tag; `token` is what a reader must send.

    hangs  the content of files stops in the middle and never comes to its end.
    """

    revisions: dict[str, Path]
    token: str | None = None
    is_gated: bool = False
    hangs: bool = False

    def commit(self, revision: str) -> str | None:
        """The 40 hex digits that a branch, a tag or a commit stands for."""
        known = {
            name: hashlib.sha1(str(path).encode()).hexdigest()
            for name, path in self.revisions.items()
        }
        return known.get(revision) or (revision if revision in known.values() else None)

    def folder(self, commit: str) -> Path:
        return next(path for name, path in self.revisions.items() if self.commit(name) == commit)


@dataclass
class Hub:
    """The hub while it runs. `requests` are (method, path, token) in the order of arrival."""

    repositories: dict[str, Repository]
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        hub = self

        class Answers(_Answers):
            of = hub

        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def downloaded(self) -> set[str]:
        """Names of the files whose content was asked for."""
        return {path.rpartition("/")[2] for method, path, _ in self.requests
                if method == "GET" and "/resolve/" in path}  # fmt: skip


class _Answers(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_GET

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        self.of.requests.append((self.command, path, token if scheme == "Bearer" else None))
        parts = path.strip("/").split("/")
        is_api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if is_api else parts[:2])
        repository = self.of.repositories.get(name)
        if repository is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        if repository.token is not None and token != repository.token:
            code = "GatedRepo" if repository.is_gated else "RepoNotFound"
            return self._send(403 if repository.is_gated else 404, b"{}", {"X-Error-Code": code})
        what, revision, *rest = parts[4:] if is_api else parts[2:]
        commit = repository.commit(revision)
        if commit is None:
            return self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        folder = repository.folder(commit)
        if what == "revision":
            siblings = [{"rfilename": path} for path in _files(folder)]
            body = {"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}
            return self._json(body)
        if what == "tree":
            return self._json([
                {"type": "file", "path": path, "size": (folder / path).stat().st_size,
                 "oid": hashlib.sha1((folder / path).read_bytes()).hexdigest()}
                for path in _files(folder)
            ])  # fmt: skip
        file = folder.joinpath(*rest)
        if not file.is_file():
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        content = file.read_bytes()
        if repository.hangs and self.command == "GET":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.flush()
            self.of.closing.wait(60)
            return None
        tag = hashlib.sha1(content).hexdigest()
        return self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": commit})

    def _json(self, body: object) -> None:
        self._send(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
