"""A hub of models on this machine: what `huggingface_hub` asks of the real one, and no more."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class SmallHub(ThreadingHTTPServer):
    """commits: {user/name: {commit: {file: bytes}}}, the newest last. asked: paths, in order."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.asked: list[str] = []

    def at(self, name: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        known = self.commits.get(name) or {}
        commit = list(known)[-1] if revision == "main" and known else revision
        return (commit, known[commit]) if commit in known else None


class Answer(BaseHTTPRequestHandler):
    server: SmallHub

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        body = self.rfile.read(int(self.headers["Content-Length"]))
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[-1] == "create":
            said = json.loads(body)
            name = "/".join(x for x in (said.get("organization"), said["name"]) if x)
            self.server.commits.setdefault(name, {})
            return self.say({"url": f"{self.server.url}/{name}"})
        if parts[-1] == "validate-yaml":
            return self.say({"errors": [], "warnings": []})
        name, what = "/".join(parts[2:4]), parts[4]
        if what == "preupload":
            files = [x["path"] for x in json.loads(body)["files"]]
            told = [{"path": x, "uploadMode": "regular", "shouldIgnore": False} for x in files]
            return self.say({"files": told})
        lines = [json.loads(line) for line in body.splitlines()]
        added = [line["value"] for line in lines if line["key"] == "file"]
        files = {x["path"]: base64.b64decode(x["content"]) for x in added}
        commit = hashlib.sha1(body).hexdigest()
        self.server.commits[name][commit] = files
        url = f"{self.server.url}/{name}/commit/{commit}"
        return self.say({"commitUrl": url, "commitOid": commit, "success": True})

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[0] == "api":  # api/models/user/name/revision/main, or tree/commit
            found = self.server.at("/".join(parts[2:4]), parts[-1])
            if found is None:
                return self.say({"error": "Repository not found"}, 404, "RepoNotFound")
            if parts[4] == "tree":
                sizes = {file: len(body) for file, body in found[1].items()}
                return self.say([{"type": "file", "path": file, "size": n, "oid": "c3" * 20}
                                 for file, n in sizes.items()])  # fmt: skip
            files = [{"rfilename": file} for file in found[1]]
            return self.say({"id": "/".join(parts[2:4]), "sha": found[0], "siblings": files})
        found = self.server.at("/".join(parts[:2]), parts[3])  # user/name/resolve/commit/file
        if found is None or parts[4] not in found[1]:
            return self.say({"error": "Entry not found"}, 404, "EntryNotFound")
        return self.send(found[1][parts[4]], 200, {
            "X-Repo-Commit": found[0], "ETag": f'"{hashlib.sha1(found[1][parts[4]]).hexdigest()}"',
        })  # fmt: skip

    do_HEAD = do_GET

    def say(self, value: Any, status: int = 200, code: str = "") -> None:
        self.send(json.dumps(value).encode(), status, {"X-Error-Code": code} if code else {})

    def send(self, body: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@contextmanager
def small_hub() -> Iterator[SmallHub]:
    hub = SmallHub()
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


def lay_out(cache: Path, name: str, files: Path, commit: str = "a1" * 20) -> Path:
    """A folder laid out as the hub's cache, with one commit, which is `main`."""
    import shutil

    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / commit
    shutil.copytree(files, snapshot)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    return snapshot
