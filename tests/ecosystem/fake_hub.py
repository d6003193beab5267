"""A Hub on this machine: the answers that the real client needs to download files of model repositories."""

import hashlib
import json
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FakeHub:
    """Serves folder/owner/name/revision/file, every revision being one commit; gated/..., busy/... answer as such do.

    It can be stopped and started again at the same address. silent: take requests and do not answer. requests: what was
    asked of repositories, such as "HEAD /owner/name/resolve/main/config.json".
    """

    def __init__(self, folder: Path):
        self.folder, self.requests, self.silent, self._port = folder, [], False, 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), partial(_Handler, self))
        self._port = self._server.server_port
        self._released = threading.Event()
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()

    def hold(self) -> None:
        """Until it is stopped."""
        self._released.wait(60)


def commit_of(folder: Path) -> str:
    """40 hexadecimal digits that stand for what a revision holds."""
    digest = hashlib.sha1()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


class _Handler(BaseHTTPRequestHandler):
    def __init__(self, hub: FakeHub, *arguments: object):
        self.hub = hub
        super().__init__(*arguments)

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"] and parts[4:5] in (["revision"], ["tree"]):
            name, revision, file = "/".join(parts[2:4]), parts[5], None
        elif parts[2:3] == ["resolve"] and len(parts) > 4:
            name, revision, file = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
        else:
            return self._refuse(404, "", "no such page")
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.silent:
            return self.hub.hold()
        self._give(name, revision, file)

    def _give(self, name: str, revision: str, file: str | None) -> None:
        owner, repository = name.partition("/")[0], self.hub.folder / name
        if owner == "gated":
            return self._refuse(403, "GatedRepo", "Access to this model is restricted")
        if owner == "busy":
            return self._refuse(503, "", "Service unavailable")
        if not repository.is_dir():
            return self._refuse(401, "RepoNotFound", "Repository not found")
        revisions = {path.name: path for path in repository.iterdir()}
        revisions |= {commit_of(path): path for path in revisions.values()}
        if revision not in revisions:
            return self._refuse(404, "RevisionNotFound", "Invalid rev id")
        folder = revisions[revision]
        commit = commit_of(folder)
        if file is None:
            files = [path for path in folder.rglob("*") if path.is_file()]
            places = {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
            about: object = {"id": name, "sha": commit, "siblings": [{"rfilename": place} for place in places]}
            if "/tree/" in self.path:
                about = [{"type": "file", "path": place, "size": size, "oid": "0"} for place, size in places.items()]
            return self._send(json.dumps(about).encode(), {"Content-Type": "application/json"})
        if not (folder / file).is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": commit})
        content = (folder / file).read_bytes()
        self._send(content, {"ETag": f'"{hashlib.sha256(content).hexdigest()}"', "X-Repo-Commit": commit})

    def _refuse(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        self._send(b"", {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}, status)

    def _send(self, content: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)
