"""A hub on the loopback interface: the few routes of the Hugging Face hub that a download goes through."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.model_folders import REVISION, files_below, sha256

_LFS = (".safetensors", ".onnx")


class HubServer(ThreadingHTTPServer):
    """Serves ``root/<organisation>/<model>/`` and notes each request and the token it came with."""

    daemon_threads = True

    def __init__(self, root: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.requests: list[str] = []
        self.tokens: set[str | None] = set()
        self.page: bytes | None = None
        """Answered to everything, as a network does that wants its users to log in first."""
        self.refused: str | None = None
        """A file that the hub lists and then has no right to hand out."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *message: object) -> None:
        return

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        self.server.tokens.add(self.headers.get("Authorization"))
        parts = path.strip("/").split("/")
        if self.server.page is not None:
            self._send(200, self.server.page, {"Content-Type": "text/html"}, body=body)
            return
        if parts[:2] == ["api", "models"]:
            self._info("/".join(parts[2:4]), body=body)
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), "/".join(parts[4:]), body=body)
        else:
            self._refuse("RepoNotFound", body=body)

    def _info(self, hub_id: str, *, body: bool) -> None:
        folder = self.server.root / hub_id
        if not folder.is_dir():
            self._refuse("RepoNotFound", body=body)
            return
        siblings = []
        for relative in sorted(files_below(folder)):
            size_bytes = (folder / relative).stat().st_size
            sibling: dict[str, object] = {"rfilename": relative, "size": size_bytes}
            if relative.endswith(_LFS):
                sibling["lfs"] = {"sha256": sha256(folder / relative), "size": size_bytes, "pointerSize": 130}
            siblings.append(sibling)
        info = {"id": hub_id, "modelId": hub_id, "sha": REVISION, "siblings": siblings, "tags": [], "private": False}
        self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body=body)

    def _file(self, hub_id: str, relative: str, *, body: bool) -> None:
        path = self.server.root / hub_id / relative
        if not path.is_file():
            self._refuse("EntryNotFound", body=body)
            return
        if relative == self.server.refused and body:
            self._send(403, b"", {}, body=body)
            return
        content = path.read_bytes()
        git = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
        etag = sha256(path) if relative.endswith(_LFS) else git
        self._send(200, content, {"ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}, body=body)

    def _refuse(self, code: str, *, body: bool) -> None:
        self._send(404, b"{}", {"X-Error-Code": code}, body=body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "X-Repo-Commit": REVISION, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def hub_server(root: Path) -> Iterator[HubServer]:
    server = HubServer(root)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
