"""A small Hub: the HTTP calls that the real client makes, answered from memory, and their faults."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import yaml


@dataclass
class Repo:
    """Commits in order, each with all files of that time."""

    private: bool = False
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    summaries: list[str] = field(default_factory=list)
    sent: list[list[str]] = field(default_factory=list)  # paths in each commit

    def commit(self, files: dict[str, bytes], summary: str = "by hand") -> str:
        whole = {**(self.commits[-1][1] if self.commits else {}), **files}
        oid = hashlib.sha1(f"{len(self.commits)}{sorted(whole.items())}".encode()).hexdigest()
        self.commits.append((oid, whole))
        self.summaries.append(summary)
        self.sent.append(sorted(files))
        return oid

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((each for each in self.commits if each[0] == revision), None)


def large(path: str) -> bool:
    return path.endswith((".safetensors", ".bin"))


def oid_of(path: str, content: bytes) -> str:
    if large(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class Hub:
    """The server. ``faults`` are consumed in order by requests whose "METHOD path" they match."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.stored: dict[str, bytes] = {}  # large files by sha256
        self.faults: list[tuple[str, object]] = []
        self.asked: list[str] = []
        self.closed = False
        self.lose = ""  # the "METHOD path" of which the next answer is lost on its way
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def fail(self, pattern: str, fault: object, times: int = 1) -> None:
        """``fault``: a status, (status, headers), "cut", or seconds to wait for nothing."""
        self.faults += [(pattern, fault)] * times

    def add(self, repo: str, files: dict[str, bytes]) -> str:
        """A repository, or one more commit of it, put there without the client."""
        for path, content in files.items():
            if large(path):
                self.stored[oid_of(path, content)] = content
        return self.repos.setdefault(repo, Repo()).commit(files)

    def close(self) -> None:
        """As if the line were dead, for connections that are open too."""
        self.closed = True
        self.server.shutdown()
        self.server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    ROUTES = [
        ("POST", r"/api/repos/create", "create"),
        ("POST", r"/api/validate-yaml", "validate"),
        ("POST", r"/api/models/([^/]+/[^/]+)/preupload/([^/]+)", "preupload"),
        ("POST", r"/api/models/([^/]+/[^/]+)/commit/([^/]+)", "commit"),
        ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", "batch"),
        ("PUT", r"/lfs/(\w+)", "store"),
        ("GET", r"/api/models/([^/]+/[^/]+)/tree/([^/]+)", "tree"),
        ("GET", r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", "info"),
        ("GET", r"/api/models/([^/]+/[^/]+)", "info"),
        ("HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
        ("GET", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", "resolve"),
    ]

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self, status: int, body: object = None, **headers: str) -> None:
        if self.hub.lose and self.hub.lose in self.hub.asked[-1]:
            self.hub.lose, self.close_connection = "", True
            return
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def route(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path
        line = f"{self.command} {path}"
        if self.hub.closed:
            self.close_connection = True
            return
        self.hub.asked.append(line)
        for at, (pattern, fault) in enumerate(self.hub.faults):
            if re.search(pattern, line):
                del self.hub.faults[at]
                return self.fault(fault)
        for method, pattern, name in self.ROUTES:
            found = re.fullmatch(pattern, path)
            if method == self.command and found:
                return getattr(self, f"on_{name}")(*map(unquote, found.groups()))
        self.answer(404, {"error": f"no route {line}"})

    do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815 - http.server's names

    def fault(self, fault: object) -> None:
        if isinstance(fault, float):
            threading.Event().wait(fault)
            self.close_connection = True
            return
        if fault == "cut":  # a promise of more bytes than come
            self.close_connection = True
            self.answer(200, b"{", Content_Length="1000", ETag='"x"')
            return
        status, headers = fault if isinstance(fault, tuple) else (fault, {})
        self.answer(status, {"error": "a fault"}, **headers)

    def found(self, repo: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        known = self.hub.repos.get(repo)
        if known is None:  # the Hub says 401, not 404, to those without a token
            status = 404 if self.headers.get("Authorization") else 401
            self.answer(status, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
            return None
        found = known.at(revision) if known.commits else ("0" * 40, {})
        if found is None:
            self.answer(404, {"error": "Invalid rev"}, X_Error_Code="RevisionNotFound")
        return found

    # ------------------------------------------------------------------ routes

    def on_create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        status = 409 if name in self.hub.repos else 200
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repos.setdefault(name, Repo(bool(private)))
        self.answer(status, {"url": f"{self.hub.url}/{name}", "id": name})

    def on_validate(self) -> None:
        head = json.loads(self.body)["content"].split("---")[1]
        good = isinstance(yaml.safe_load(head), dict)
        self.answer(200 if good else 400, {"errors": [] if good else [{"message": "no mapping"}]})

    def on_preupload(self, repo: str, revision: str) -> None:
        if (found := self.found(repo, revision)) is None:
            return
        files = []
        for file in json.loads(self.body)["files"]:
            path = file["path"]
            mode = "lfs" if large(path) else "regular"
            told = {"path": path, "uploadMode": mode, "shouldIgnore": False}
            if path in found[1]:
                told["oid"] = oid_of(path, found[1][path])
            files.append(told)
        self.answer(200, {"files": files})

    def on_batch(self, repo: str) -> None:
        objects = []
        for each in json.loads(self.body)["objects"]:
            if each["oid"] not in self.hub.stored:
                href = f"{self.hub.url}/lfs/{each['oid']}"
                each = {**each, "actions": {"upload": {"href": href, "header": {}}}}
            objects.append(each)
        self.answer(200, {"transfer": "basic", "objects": objects})

    def on_store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.stored[oid] = self.body
        self.answer(200, {})

    def on_commit(self, repo: str, revision: str) -> None:
        files, summary = {}, ""
        for line in self.body.splitlines():
            item = json.loads(line)
            key, value = item["key"], item["value"]
            if key == "header":
                summary = value["summary"]
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            else:
                return self.answer(400, {"error": f"unknown key {key}"})
        oid = self.hub.repos[repo].commit(files, summary)
        url = f"{self.hub.url}/{repo}/commit/{oid}"
        self.answer(200, {"commitUrl": url, "commitOid": oid, "success": True})

    def on_info(self, repo: str, revision: str = "main") -> None:
        if (found := self.found(repo, revision)) is None:
            return
        siblings = [{"rfilename": path} for path in sorted(found[1])]
        private = self.hub.repos[repo].private
        told = {"id": repo, "modelId": repo, "sha": found[0], "private": private}
        self.answer(200, {**told, "siblings": siblings, "tags": [], "downloads": 0, "likes": 0})

    def on_tree(self, repo: str, revision: str) -> None:
        if (found := self.found(repo, revision)) is None:
            return
        rows = []
        for path, content in sorted(found[1].items()):
            row = {"type": "file", "path": path, "size": len(content)}
            row["oid"] = hashlib.sha1(content).hexdigest()
            if large(path):
                row["lfs"] = {"oid": oid_of(path, content), "size": len(content), "pointerSize": 1}
            rows.append(row)
        self.answer(200, rows)

    def on_resolve(self, repo: str, revision: str, path: str) -> None:
        if (found := self.found(repo, revision)) is None:
            return
        if path not in found[1]:
            return self.answer(404, {}, X_Error_Code="EntryNotFound", X_Repo_Commit=found[0])
        content = found[1][path]
        first = int((self.headers.get("Range") or "bytes=0-")[6:].partition("-")[0])
        tag = {"ETag": f'"{oid_of(path, content)}"', "X_Repo_Commit": found[0]}
        self.answer(206 if first else 200, content[first:], **tag, X_Linked_Size=str(len(content)))
