"""A stand-in for the Hugging Face Hub on this machine: makes repositories, takes commits, and notes every request."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_abcdefghijklmnop"
"""A token as tests give it."""


class StandIn:
    """What the hub holds and was asked.

    Attributes:
        url: its address.
        private: of each repository, whether it is.
        files: of each repository, its files.
        asked: method, path and token of every request.
        refuses: status that every request is answered with; 0 for none.
        commits: how many were taken.
        most_commits: takes no more, as a connection that breaks.
    """

    def __init__(self) -> None:
        self.url = ""
        self.private: dict[str, bool] = {}
        self.files: dict[str, dict[str, bytes]] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.refuses = 0
        self.commits, self.most_commits = 0, 1_000

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Status and answer to a request."""
        if self.refuses:
            return self.refuses, {"error": "not allowed"}
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            asked = json.loads(body)
            repo = f"{asked['organization']}/{asked['name']}"
            if repo in self.private:
                return 409, {"error": "it exists", "url": f"{self.url}/{repo}"}
            self.private[repo] = asked.get("visibility") == "private" or asked.get("private", False)  # new, old client
            return 200, {"url": f"{self.url}/{repo}"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        repo, rest = "/".join(parts[2:4]), parts[4:]
        if repo not in self.private:
            return 404, {"error": f"{method} {path}"}
        if not rest or rest[0] == "revision":
            held = [{"rfilename": name} for name in self.files.get(repo, {})]
            return 200, {"id": repo, "private": self.private[repo], "siblings": held, "sha": "0" * 40, "tags": []}
        if rest[0] == "preupload":
            held = self.files.get(repo, {})
            files = [
                {"path": each["path"], "uploadMode": "regular", "oid": git_blob(held.get(each["path"]))}
                for each in json.loads(body)["files"]
            ]
            return 200, {"files": [each | {"shouldIgnore": False} for each in files]}
        if rest[0] == "commit":
            if self.commits >= self.most_commits:
                return 413, {"error": "that is enough"}
            self.commits += 1
            lines = [json.loads(line) for line in body.splitlines()]
            sent = [line["value"] for line in lines if line["key"] == "file"]
            self.files.setdefault(repo, {}).update({each["path"]: base64.b64decode(each["content"]) for each in sent})
            return 200, {"commitOid": "1" * 40, "commitUrl": f"{self.url}/{repo}/commit/1"}
        return 404, {"error": f"{method} {path}"}


def git_blob(content: bytes | None) -> str | None:
    """The hash that git, and so the hub, gives a file; by it the client knows what it need not send again."""
    return None if content is None else hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def stand_in_hub() -> Iterator[StandIn]:
    """A stand-in that listens on loopback while the block runs."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.partition("?")[0]
            hub.asked.append((self.command, path, self.headers.get("Authorization", "")))
            status, said = hub.answer(self.command, path, body)
            data = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST  # noqa: N815  (their names)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
