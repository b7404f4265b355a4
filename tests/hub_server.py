"""A stand-in for the Hugging Face hub on 127.0.0.1: one model repository, read-only.

It speaks what the client asks of the real one (https://huggingface.co/docs/hub/api): the model's
description, its file tree, and HEAD/GET of files with ETag, X-Repo-Commit and ranges.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit


class HubStandIn:
    """``with HubStandIn("org/name", {"config.json": b"{}"}) as hub:`` serves until the end.

    ``requests`` collects ``(method, path)`` of all that was asked for. ``refuse`` makes the hub
    say no: part of a path -> ``(HTTP status, headers)``.
    """

    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, repository: str, files: Mapping[str, bytes]) -> None:
        self.repository = repository
        self.files = dict(files)
        self.refuse: dict[str, tuple[int, dict[str, str]]] = {}
        self.requests: list[tuple[str, str]] = []
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                stand_in.answer(self)

            def do_HEAD(self) -> None:
                stand_in.answer(self)

            def log_message(self, *_args: object) -> None:
                """Say nothing: the requests are kept in ``requests``."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def fetched(self) -> list[str]:
        """Names of the files whose content was asked for, in alphabetical order."""
        mark = f"/resolve/{self.commit}/"
        return sorted(
            path.partition(mark)[2]
            for method, path in self.requests
            if method == "GET" and mark in path
        )

    def __enter__(self) -> HubStandIn:
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _value: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """Answer one request."""
        path = unquote(urlsplit(request.path).path)
        self.requests.append((request.command, path))
        for part, (status, headers) in self.refuse.items():
            if part in path:
                return _send(request, status, headers=headers)
        api = f"/api/models/{self.repository}"
        if path == api:
            return _send_json(request, self._description())
        if path.startswith(api + "/revision/"):
            known = path.rpartition("/")[2] in ("main", self.commit)
            return _send_json(request, self._description()) if known else _no_revision(request)
        if path == f"{api}/tree/{self.commit}":
            return _send_json(request, self._tree())
        name = path.removeprefix(f"/{self.repository}/resolve/{self.commit}/")
        if name in self.files:
            return self._send_file(request, name)
        # The real hub tells an anonymous client 401 for what does not exist.
        _send(request, 401, headers={"X-Error-Code": "RepoNotFound"})

    def _description(self) -> dict[str, Any]:
        siblings = [{"rfilename": name, "size": len(data)} for name, data in self.files.items()]
        return {"id": self.repository, "sha": self.commit, "siblings": siblings}

    def _tree(self) -> list[dict[str, Any]]:
        return [
            {"type": "file", "path": name, "size": len(data), "oid": _etag(data)}
            for name, data in self.files.items()
        ]

    def _send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        data = self.files[name]
        headers = {"ETag": f'"{_etag(data)}"', "X-Repo-Commit": self.commit}
        wanted = request.headers.get("Range")
        if wanted is None:
            return _send(request, 200, data, headers)
        start, _, end = wanted.removeprefix("bytes=").partition("-")
        part = data[int(start) : int(end) + 1 if end else None]
        headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{len(data)}"
        _send(request, 206, part, headers)


def _etag(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


def _no_revision(request: BaseHTTPRequestHandler) -> None:
    _send(request, 404, headers={"X-Error-Code": "RevisionNotFound"})


def _send_json(request: BaseHTTPRequestHandler, data: object) -> None:
    _send(request, 200, json.dumps(data).encode(), {"Content-Type": "application/json"})


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    headers: Mapping[str, str] | None = None,
) -> None:
    request.send_response(status)
    for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        request.send_header(key, value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
