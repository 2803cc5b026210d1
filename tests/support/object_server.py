"""A real S3-compatible server (moto's) on the loopback, in a process of its own, and what it is asked to do."""

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.launched import free_port

BUCKET = "bucket"
KEY, SECRET = "access-key-of-the-tests", "secret-key-of-the-tests"

SIGNED = f"AWS4-HMAC-SHA256 Credential={KEY}/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0"
"""The server asks that a request be signed, but not by whom, unless it is told to."""

SERVE = """
import os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
"""The server, until its standard input is closed: also if the tests are killed."""


class ObjectServer:
    """The server; `kill` ends it as a crash would, and `start` begins it anew, without its objects."""

    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which a client finds it."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def start(self) -> None:
        command, null = [sys.executable, "-W", "ignore", "-c", SERVE, str(self.port)], subprocess.DEVNULL
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=null, stderr=null)
        until = time.monotonic() + 30
        while True:
            try:
                self.ask("PUT", BUCKET)
                return
            except OSError:
                assert self.process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()  # closes the pipe
            self.process = None

    def ask(self, method: str, path: str, data: bytes | None = None) -> bytes:
        headers = {"Content-Type": "application/octet-stream", "Authorization": SIGNED}
        request = urllib.request.Request(f"{self.endpoint}/{path}", data, headers, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return bytes(answer.read())

    def put(self, name: str, data: bytes) -> None:
        self.ask("PUT", f"{BUCKET}/{name}", data)

    def delete(self, name: str) -> None:
        self.ask("DELETE", f"{BUCKET}/{name}")

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy a folder there; returns its address."""
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def object_server() -> Iterator[ObjectServer]:
    """The server, and the variables that lead there, while the block runs."""
    server = ObjectServer()
    before = dict(os.environ)
    try:
        server.start()
        os.environ.update(server.environment)
        yield server
    finally:
        server.kill()
        os.environ.clear()
        os.environ.update(before)
