"""A Hugging Face hub on the loopback interface: the part of its HTTP API that a download of a model uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40
OTHER_COMMIT = "b" * 40


@dataclass
class Repository:
    """One model: commit → path → content; `refs` are its branches and tags."""

    commits: Mapping[str, Mapping[str, bytes]]
    refs: Mapping[str, str] = field(default_factory=lambda: {"main": COMMIT})

    def commit_of(self, revision: str) -> str | None:
        commit = self.refs.get(revision, revision)
        return commit if commit in self.commits else None


@dataclass
class FakeHub:
    """`failures` maps the prefix of a path to (status, ``X-Error-Code``); `requests` records method and path."""

    repositories: Mapping[str, Repository]
    failures: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    url: str = ""

    def downloaded(self) -> set[str]:
        """Names of the files whose content was fetched."""
        return {line.rsplit("/", 1)[1] for line in self.requests if line.startswith("GET ") and "/resolve/" in line}

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        for start, (status, code) in self.failures.items():
            if path.startswith(start):
                return status, {"X-Error-Code": code} if code else {}, b""
        parts = [unquote(part) for part in path.split("?")[0].strip("/").split("/")]
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._api("/".join(parts[2:4]), parts[4:])
        if len(parts) >= 5 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))
        return 404, {}, b""

    def _find(self, name: str, revision: str) -> tuple[str, Mapping[str, bytes]] | str:
        if name not in self.repositories:
            return "RepoNotFound"
        commit = self.repositories[name].commit_of(revision)
        return "RevisionNotFound" if commit is None else (commit, self.repositories[name].commits[commit])

    def _api(self, name: str, rest: list[str]) -> tuple[int, dict[str, str], bytes]:
        found = self._find(name, rest[1] if len(rest) > 1 else "main")
        if isinstance(found, str):
            return 404, {"X-Error-Code": found}, b""
        commit, files = found
        answer: Any = {"id": name, "sha": commit, "siblings": [{"rfilename": path} for path in files]}
        if rest[:1] == ["tree"]:
            answer = [
                {"type": "file", "path": path, "size": len(content), "oid": _digest(content)}
                for path, content in files.items()
            ]
        return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()

    def _file(self, name: str, revision: str, path: str) -> tuple[int, dict[str, str], bytes]:
        found = self._find(name, revision)
        if isinstance(found, str) or path not in found[1]:
            return 404, {"X-Error-Code": found if isinstance(found, str) else "EntryNotFound"}, b""
        content = found[1][path]
        return 200, {"ETag": f'"{_digest(content)}"', "X-Repo-Commit": found[0]}, content


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@contextmanager
def serve(hub: FakeHub) -> Iterator[FakeHub]:
    """Serves `hub` from a thread and sets its `url`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            status, headers, content = hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
