"""A hub for tests: repositories over HTTP, by the requests that huggingface_hub makes."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

WRITER, READER = "writes", "reads"
# What the hub stores apart from git, by the ending.
_LARGE = (".parquet", ".arrow", ".safetensors")


def commit_of(number: int) -> str:
    """The name of a commit."""
    return hashlib.sha1(str(number).encode()).hexdigest()


@dataclass
class Repository:
    """One repository: its files at each commit."""

    private: bool
    commits: list[dict[str, bytes]] = field(default_factory=lambda: [{".gitattributes": b"*"}])

    @property
    def sha(self) -> str:
        """Its newest commit."""
        return commit_of(len(self.commits))

    @property
    def files(self) -> dict[str, bytes]:
        """What lies there now."""
        return self.commits[-1]

    def at(self, revision: str) -> dict[str, bytes] | None:
        """What lay there at a commit."""
        named = {commit_of(number + 1): one for number, one in enumerate(self.commits)}
        return self.files if revision == "main" else named.get(revision)


@dataclass
class Hub:
    """A hub that runs.

    Attributes:
        url: Its address.
        repositories: What it holds, by `datasets/me/x` or `models/me/x`.
        objects: Large files that were sent, by sha256.
        requests: Method and path of each request.
        sent: Paths of the commits that came, and of large files that were sent.
        most_sent: Large files that it takes before it fails; None for all.
        meanwhile: Files that somebody else commits once something is about to be sent.
        stops: Whether it takes one large file, and then answers nothing for a second.
        took: Set once it has taken one.
    """

    url: str
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    most_sent: int | None = None
    meanwhile: dict[str, bytes] = field(default_factory=dict)
    stops: bool = False
    took: threading.Event = field(default_factory=threading.Event)

    def environment(self, token: str | None = WRITER, **more: str) -> dict[str, str]:
        """What a program needs to use it."""
        here = {"HF_ENDPOINT": self.url, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
        return {**here, "HF_TOKEN": token or "", **more}


def git_digest(content: bytes) -> str:
    """The name that git gives to a file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def entry(path: str, content: bytes) -> dict[str, Any]:
    """What the hub lists of a file."""
    found = {"type": "file", "path": path, "size": len(content), "oid": git_digest(content)}
    if path.endswith(_LARGE):
        digest = hashlib.sha256(content).hexdigest()
        found["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 130}
    return found


def listing(files: dict[str, bytes], below: str) -> list[dict[str, Any]]:
    """Files and folders below a path, all of them."""
    start = f"{below}/" if below else ""
    inside = {path: content for path, content in files.items() if path.startswith(start)}
    folders = {
        "/".join(path.split("/")[:n]) for path in inside for n in range(1, path.count("/") + 1)
    }
    found = [{"type": "directory", "path": one, "size": 0, "oid": "0" * 40} for one in folders]
    return found + [entry(*one) for one in inside.items()]


class Handler(BaseHTTPRequestHandler):
    """Answers as the hub does, as far as it is asked here."""

    protocol_version = "HTTP/1.1"
    hub: Hub
    lock: threading.Lock

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def do_PUT(self) -> None:
        self.answer()

    def answer(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.body = b""
            while size := int(self.rfile.readline(), 16):
                self.body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        with self.lock:
            self.hub.requests.append((self.command, path))
            self.route(path)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def route(self, path: str) -> None:
        if path == "/":
            return self.send(200, {})
        if path.startswith("/objects/"):
            return self.take_object(path.removeprefix("/objects/"))
        if self.token not in ("", WRITER, READER):
            return self.send(401, {"error": "Invalid username or password."})
        if path == "/api/validate-yaml":
            return self.send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self.create()
        if found := re.fullmatch(r"/api/(datasets|models)/([^/]+/[^/]+)(?:/(.*))?", path):
            return self.api(f"{found[1]}/{found[2]}", found[3] or "")
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self.batch()
        if found := re.fullmatch(r"/(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(f"{found[1] or 'models/'}{found[2]}", found[3], found[4])
        return self.send(404, {"error": f"no {path} here"})

    def refused(self) -> bool:
        """Whether the token may not write, which is said then."""
        if self.token == WRITER:
            return False
        status = 403 if self.token else 401
        self.send(status, {"error": "you may not write here"})
        return True

    def create(self) -> None:
        if self.refused():
            return
        asked = json.loads(self.body)
        if asked["organization"] != "me":
            return self.send(403, {"error": "you may not write in this namespace"})
        name = f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}"
        private = asked.get("visibility") == "private" or asked.get("private") is True
        if name in self.hub.repositories:
            return self.send(409, {"error": "it is there already"})
        self.hub.repositories[name] = Repository(private)
        self.send(200, {"url": f"{self.hub.url}/{name.removeprefix('models/')}"})

    def visible(self, name: str) -> Repository | None:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.token):
            status = 404 if self.token else 401
            self.send(status, {"error": "not found"}, **{"X-Error-Code": "RepoNotFound"})
            return None
        return found

    def api(self, name: str, rest: str) -> None:
        repository = self.visible(name)
        if repository is None:
            return
        what, _, rest = rest.partition("/")
        revision, _, inside = rest.partition("/")
        files = repository.at(revision or "main")
        if files is None:
            return self.send(404, {"error": "no"}, **{"X-Error-Code": "RevisionNotFound"})
        if what in ("", "revision"):
            named = [{"rfilename": path} for path in files]
            sha = repository.sha if revision in ("", "main") else revision
            about = {"id": name.split("/", 1)[1], "sha": sha, "private": repository.private}
            return self.send(200, {**about, "siblings": named, "tags": [], "downloads": 0})
        if what == "tree":
            return self.send(200, listing(files, inside))
        if what == "paths-info":
            asked = parse_qs(self.body.decode()).get("paths", [])
            return self.send(200, [entry(one, files[one]) for one in asked if one in files])
        if self.refused():
            return None
        if what == "preupload":
            if self.hub.meanwhile:
                repository.commits.append({**files, **self.hub.meanwhile})
                self.hub.meanwhile = {}
            return self.preupload(files)
        return self.commit(name, repository)

    def preupload(self, files: dict[str, bytes]) -> None:
        answers = []
        for one in json.loads(self.body)["files"]:
            is_large = one["path"].endswith(_LARGE)
            content = files.get(one["path"])
            known = None
            if content is not None:
                known = hashlib.sha256(content).hexdigest() if is_large else git_digest(content)
            mode = "lfs" if is_large else "regular"
            said = {"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": known}
            answers.append(said)
        self.send(200, {"files": answers})

    def batch(self) -> None:
        if self.refused():
            return
        answers = []
        for one in json.loads(self.body)["objects"]:
            upload = {"upload": {"href": f"{self.hub.url}/objects/{one['oid']}"}}
            known = one["oid"] in self.hub.objects
            answers.append({**one, **({} if known else {"actions": upload})})
        self.send(200, {"transfer": "basic", "objects": answers})

    def take_object(self, oid: str) -> None:
        if self.hub.most_sent is not None and len(self.hub.objects) >= self.hub.most_sent:
            return self.send(400, {"error": "the line is dead"})
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.objects[oid] = self.body
        self.hub.sent.append(oid)
        self.hub.took.set()
        if self.hub.stops:
            time.sleep(1)
        return self.send(200, {})

    def commit(self, name: str, repository: Repository) -> None:
        files = dict(repository.files)
        for line in self.body.decode().splitlines():
            one = json.loads(line)
            value = one["value"]
            if one["key"] == "header":
                if value.get("parentCommit") != repository.sha:
                    return self.send(412, {"error": "somebody has committed since"})
                continue
            self.hub.sent.append(f"{one['key']} {value['path']}")
            if one["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif one["key"] == "lfsFile":
                files[value["path"]] = self.hub.objects[value["oid"]]
            else:
                del files[value["path"]]
        repository.commits.append(files)
        oid, page = repository.sha, f"{self.hub.url}/{name.removeprefix('models/')}"
        return self.send(200, {"commitUrl": f"{page}/commit/{oid}", "commitOid": oid})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.visible(name)
        if repository is None:
            return
        content = (repository.at(revision) or {}).get(path)
        if content is None:
            return self.send(404, {"error": "no"}, **{"X-Error-Code": "EntryNotFound"})
        sha = repository.sha if revision == "main" else revision
        about = {"ETag": f'"{git_digest(content)}"', "X-Repo-Commit": sha}
        return self.send(200, content, **about)

    def send(self, status: int, content: Any, **headers: str) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        kind = "application/octet-stream" if isinstance(content, bytes) else "application/json"
        for name, value in {"Content-Type": kind, "Content-Length": len(raw), **headers}.items():
            self.send_header(name, str(value))
        with suppress(OSError):
            # Who asked may have been killed.
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def serve_hub() -> Iterator[Hub]:
    """A hub on a free port of this machine, until the end of the block."""
    handler = type("HubHandler", (Handler,), {"lock": threading.Lock()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.hub = hub = Hub(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
