"""A stand-in for the Hugging Face hub that its own client talks to: an HTTP server that keeps what is pushed to it.

It answers what the client asks when a repository is made and a folder is uploaded, in the hub's documented forms: small
files come in the commit, others as git LFS objects by their sha256.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from attrs import define, field

TOKEN = "hf_stand_in"

OID = "1" * 40

LARGE = (".safetensors", ".pt2", ".png")
"""The endings of files that the hub keeps as LFS objects."""


@define
class Hub:
    """What was pushed: repositories that were made, with what was asked, commits and files by their paths."""

    made: dict[str, dict[str, Any]] = field(factory=dict)
    commits: list[str] = field(factory=list)
    files: dict[str, bytes] = field(factory=dict)
    objects: dict[str, bytes] = field(factory=dict)

    def save(self, folder: Path) -> None:
        """Writes the files that were pushed below a folder, as a download would."""
        for name, content in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    def answer(self, place: str, body: bytes, origin: str) -> dict[str, Any]:
        """What the hub answers to a POST; `origin` is its own address."""
        if place == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.pop('organization')}/{asked.pop('name')}"
            self.made[name] = asked
            return {"url": f"{origin}/{name}"}
        if place == "/api/validate-yaml":
            return {"errors": [], "warnings": []}
        if "/preupload/" in place:
            return {
                "files": [
                    {
                        **{"path": file["path"], "shouldIgnore": False},
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    }
                    for file in json.loads(body)["files"]
                ]
            }
        if place.endswith("/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{origin}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return {"transfer": "basic", "objects": objects}
        assert "/commit/" in place, place
        self._commit([json.loads(line) for line in body.splitlines()])
        repository = place.removeprefix("/api/models/").partition("/commit/")[0]
        return {"commitUrl": f"{origin}/{repository}/commit/{OID}", "commitOid": OID, "pullRequestUrl": None}

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            of = line["value"]
            if line["key"] == "header":
                self.commits.append(of["summary"])
            elif line["key"] == "lfsFile":
                self.files[of["path"]] = self.objects[of["oid"]]
            else:
                assert (line["key"], of["encoding"]) == ("file", "base64")
                self.files[of["path"]] = base64.b64decode(of["content"])


@contextmanager
def serve() -> Iterator[tuple[Hub, str]]:
    """Serves an empty hub on this machine; gives it and its address."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self._answer(lambda body: hub.answer(self.path.partition("?")[0], body, origin))

        def do_PUT(self) -> None:
            def keep(body: bytes) -> dict[str, Any]:
                assert self.path == f"/lfs/{hashlib.sha256(body).hexdigest()}"
                hub.objects[self.path.removeprefix("/lfs/")] = body
                return {}

            self._answer(keep)

        def _answer(self, make: Any) -> None:
            body = self._body()
            is_known = self.command == "PUT" or self.headers.get("Authorization") == f"Bearer {TOKEN}"
            content = json.dumps(make(body) if is_known else {"error": "Invalid username or password."}).encode()
            self.send_response(200 if is_known else 401)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def log_message(self, *arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    origin = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub, origin
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
