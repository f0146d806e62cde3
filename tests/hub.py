"""A small hub on this machine for the real `huggingface_hub` client: repositories, branches, LFS, commits, downloads.

It speaks what the client asks of the real one, over HTTP: making a repository, checking a card's header, where a file
goes (`preupload`), LFS batches with sizes and sha256 verified, commits, trees, and `resolve` with etags and ranges.
"""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

import yaml

TOKEN = "hf_thisIsASecretOfTheTest"
_LICENCES = ("apache-2.0", "mit", "cc-by-4.0")


@dataclass
class Model:
    """One repository: `commits` from id to files by path, `branches` from name to commit id."""

    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: dict[str, bytes]) -> str:
        held = self.commits.get(self.branches.get(branch, ""), {}) | files
        number = hashlib.sha1(repr((len(self.commits), sorted(held.items()))).encode()).hexdigest()
        self.commits[number], self.branches[branch] = held, number
        return number


@dataclass
class Hub:
    """A running server: `models` by name, `requests` as (method, path); `down`: it answers all with faults."""

    url: str
    models: dict[str, Model] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    down: bool = False


@contextmanager
def open_hub() -> Iterator[Hub]:
    """A hub whose only user has the token `TOKEN`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_port}")
    server.hub = hub  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", told: object = None) -> None:
        super().__init__(status)
        self.status, self.code, self.told = status, code, told


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the screen."""

    def do_GET(self) -> None:
        self._answer("GET")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    @property
    def hub(self) -> Hub:
        return self.server.hub  # pyright: ignore[reportAttributeAccessIssue]

    def _answer(self, method: str) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append((self.command, path))
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.hub.down:
                raise _Refusal(500, told={"error": "a wheel has come off"})
            for known, pattern, reply in _ROUTES:
                found = re.fullmatch(pattern, path)
                if known == method and found:
                    return reply(self, *found.groups())
            raise _Refusal(404)
        except _Refusal as refusal:
            headers = {"X-Error-Code": refusal.code} if refusal.code else {}
            self._send(json.dumps(refusal.told or {"error": refusal.code}).encode(), refusal.status, headers)

    def _send(self, body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _say(self, content: object) -> None:
        self._send(json.dumps(content).encode(), headers={"Content-Type": "application/json"})

    def _known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _writer(self) -> None:
        if not self._known():
            raise _Refusal(401, told={"error": "Invalid username or password."})

    def _model(self, name: str) -> Model:
        model = self.hub.models.get(name)
        if model is None or (model.private and not self._known()):
            raise _Refusal(404, "RepoNotFound")
        return model

    def _files(self, name: str, revision: str) -> tuple[str, dict[str, bytes]]:
        model = self._model(name)
        number = model.branches.get(revision, revision)
        if number not in model.commits:
            raise _Refusal(404, "RevisionNotFound")
        return number, model.commits[number]

    def create(self) -> None:
        self._writer()
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.hub.models
        if not there:
            self.hub.models[name] = Model(asked.get("visibility") == "private" or bool(asked.get("private")))
            self.hub.models[name].commit("main", {".gitattributes": b"*.safetensors filter=lfs\n"})
        self._send(json.dumps({"url": f"{self.hub.url}/{name}", "name": name}).encode(), 409 if there else 200)

    def branch(self, name: str, branch: str) -> None:
        self._writer()
        model = self._model(name)
        there = branch in model.branches
        model.branches.setdefault(branch, model.branches["main"])
        self._send(b"{}", 409 if there else 200)

    def check_card(self) -> None:
        header = yaml.safe_load(json.loads(self.body)["content"].split("---")[1])
        licence = header.get("license")
        if licence is not None and licence not in _LICENCES:
            raise _Refusal(400, told={"errors": [{"message": '"license" must be one of [apache-2.0, ...]'}]})
        self._say({"warnings": [], "errors": []})

    def preupload(self, name: str, revision: str) -> None:
        self._writer()
        self._files(name, revision)
        wanted = [entry["path"] for entry in json.loads(self.body)["files"]]
        modes = {path: "lfs" if path.endswith(".safetensors") else "regular" for path in wanted}
        self._say({"files": [{"path": p, "uploadMode": m, "shouldIgnore": False} for p, m in modes.items()]})

    def batch(self, name: str) -> None:
        self._writer()
        objects: list[dict[str, Any]] = []
        for entry in json.loads(self.body)["objects"]:
            place = {"href": f"{self.hub.url}/lfs/{entry['oid']}"}
            new = entry["oid"] not in self.hub.blobs
            objects.append(entry | ({"actions": {"upload": place, "verify": place}} if new else {}))
        self._say({"transfer": "basic", "objects": objects})

    def put_blob(self, oid: str) -> None:
        self.hub.blobs[oid] = self.body
        self._send(b"")

    def verify_blob(self, oid: str) -> None:
        data, asked = self.hub.blobs[oid], json.loads(self.body)
        if (hashlib.sha256(data).hexdigest(), len(data)) != (asked["oid"], asked["size"]):
            raise _Refusal(422)
        self._say({})

    def commit(self, name: str, branch: str) -> None:
        self._writer()
        files = {}
        for entry in map(json.loads, self.body.splitlines()):
            if entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            elif entry["key"] == "lfsFile":
                files[entry["value"]["path"]] = self.hub.blobs[entry["value"]["oid"]]
        number = self._model(name).commit(branch, files)
        self._say({"commitUrl": f"{self.hub.url}/{name}/commit/{number}", "commitOid": number})

    def info(self, name: str, revision: str = "main") -> None:
        self._say({"id": name, "sha": self._files(name, revision)[0], "siblings": [], "tags": []})

    def tree(self, name: str, revision: str) -> None:
        _, files = self._files(name, revision)
        self._say([{"type": "file", "path": p, "size": len(d), "oid": _etag(d)} for p, d in files.items()])

    def resolve(self, name: str, revision: str, path: str) -> None:
        number, files = self._files(name, revision)
        if path not in files:
            raise _Refusal(404, "EntryNotFound")
        data = files[path]
        self._send(data, headers={"ETag": f'"{_etag(data)}"', "X-Repo-Commit": number})


def _etag(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


_REPOSITORY = r"([^/]+/[^/]+)"
_ROUTES = [
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", f"/api/models/{_REPOSITORY}/branch/(.+)", _Handler.branch),
    ("POST", "/api/validate-yaml", _Handler.check_card),
    ("POST", f"/api/models/{_REPOSITORY}/preupload/(.+)", _Handler.preupload),
    ("POST", f"/{_REPOSITORY}.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/([0-9a-f]+)", _Handler.put_blob),
    ("POST", "/lfs/([0-9a-f]+)", _Handler.verify_blob),
    ("POST", f"/api/models/{_REPOSITORY}/commit/(.+)", _Handler.commit),
    ("GET", f"/api/models/{_REPOSITORY}", _Handler.info),
    ("GET", f"/api/models/{_REPOSITORY}/revision/(.+)", _Handler.info),
    ("GET", f"/api/models/{_REPOSITORY}/tree/(.+)", _Handler.tree),
    ("GET", f"/{_REPOSITORY}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
