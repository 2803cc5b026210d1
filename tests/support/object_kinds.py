"""Servers of the kinds of object stores beside S3, on the loopback, each in a form that its own client takes.

gs      the server of `object_server`, asked by Google's client: its XML interface is S3's for what is read here
az      Azurite, Microsoft's emulator (`npm install azurite`), where its program is installed
https   a server with TLS that answers ranges, and lists folders as WebDAV does
"""

import base64
import hashlib
import hmac
import os
import shutil
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import quote, unquote

import pytest

from support.launched import free_port
from support.object_server import BUCKET, object_server

Kind = Literal["gs", "az", "https"]
KINDS: tuple[Kind, ...] = ("gs", "az", "https")
Put = Callable[[str, bytes], object]
"""Puts an object below the address."""

AZURITE, ACCOUNT, ACCOUNT_KEY = "azurite-blob", "oftests", base64.b64encode(b"key of the tests").decode()
AZURE_VERSION = "2021-08-06"


@contextmanager
def store_of_kind(kind: Kind, folder: Path) -> Iterator[tuple[str, Put]]:
    """A server, its address of a place for objects, and what puts them there; the variables that lead there are set
    while the block runs. Skips the test if there is no such server here.
    """
    before = dict(os.environ)
    try:
        with {"gs": _google, "az": _azure, "https": _web}[kind](folder) as (url, put):
            yield url, put
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _google(folder: Path) -> Iterator[tuple[str, Put]]:
    with object_server() as server:
        os.environ.update(GOOGLE_BASE_URL=server.endpoint, GOOGLE_BEARER_TOKEN="token")
        yield f"gs://{BUCKET}", lambda name, data: server.put(quote(name), data)


@contextmanager
def _azure(folder: Path) -> Iterator[tuple[str, Put]]:
    program = shutil.which(AZURITE)
    if program is None:
        pytest.skip(f"needs {AZURITE} (npm install azurite)")
    port, null = free_port(), subprocess.DEVNULL
    command = [program, "--blobPort", str(port), "--location", str(folder), "--silent", "--skipApiVersionCheck"]
    command += ["--disableTelemetry"]
    os.environ["AZURITE_ACCOUNTS"] = f"{ACCOUNT}:{ACCOUNT_KEY}"
    process = subprocess.Popen(command, stdin=null, stdout=null, stderr=null)
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    os.environ.update(
        AZURE_ENDPOINT=endpoint, AZURE_STORAGE_ACCOUNT_NAME=ACCOUNT, AZURE_STORAGE_ACCOUNT_KEY=ACCOUNT_KEY
    )

    def ask(path: str, query: str, words: list[str], data: bytes) -> None:
        """Signed by the account's key, as "Authorize with Shared Key" of Azure Storage's documentation says."""
        headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": AZURE_VERSION}
        headers |= {"x-ms-blob-type": "BlockBlob"} if data or not query else {}
        length = str(len(data)) if data else ""
        kind = "application/octet-stream"
        lines = ["PUT", "", "", length, "", kind, *[""] * 6, *(f"{name}:{headers[name]}" for name in sorted(headers))]
        text = "\n".join([*lines, f"/{ACCOUNT}/{ACCOUNT}/{path}", *words])
        digest = hmac.new(base64.b64decode(ACCOUNT_KEY), text.encode(), hashlib.sha256).digest()
        headers |= {"Authorization": f"SharedKey {ACCOUNT}:{base64.b64encode(digest).decode()}", "Content-Type": kind}
        request = urllib.request.Request(f"{endpoint}/{path}{query}", data, headers, method="PUT")
        urllib.request.urlopen(request, timeout=10).close()

    try:
        until = time.monotonic() + 60
        while True:
            try:
                ask(BUCKET, "?restype=container", ["restype:container"], b"")
                break
            except urllib.error.HTTPError:
                raise
            except OSError:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.1)
        yield f"az://{BUCKET}", lambda name, data: ask(f"{BUCKET}/{quote(name)}", "", [], data)
    finally:
        process.kill()
        process.wait()


MODIFIED = "Sat, 28 Nov 2026 10:00:00 GMT"


class Answers(BaseHTTPRequestHandler):
    """Answers of a web server whose `files` are in memory."""

    files: ClassVar[dict[str, bytes]] = {}
    protocol_version = "HTTP/1.1"

    def log_message(self, *of: object) -> None: ...

    def answer(self, code: int, body: bytes, **headers: str) -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        body = self.files.get(unquote(self.path))
        if body is None:
            self.answer(404, b"")
            return
        facts = {"Last_Modified": MODIFIED, "ETag": f'"{hashlib.sha256(body).hexdigest()[:8]}"'}
        if (wanted := self.headers.get("Range")) is None or self.command == "HEAD":
            self.answer(200, body, **facts)
            return
        start, last = map(int, wanted.removeprefix("bytes=").split("-"))
        part = body[start : last + 1]
        if not part:
            self.answer(416, b"")
        else:
            facts["Content_Range"] = f"bytes {start}-{start + len(part) - 1}/{len(body)}"
            self.answer(206, part, **facts)

    do_HEAD = do_GET  # noqa: N815  (as the server calls it)

    def do_PROPFIND(self) -> None:
        """Lists all below a folder, as depth "infinity" of WebDAV (RFC 4918)."""
        folder = unquote(self.path).rstrip("/") + "/"
        found = "".join(
            f"<D:response><D:href>{quote(name)}</D:href><D:propstat><D:prop><D:getlastmodified>{MODIFIED}"
            f"</D:getlastmodified><D:getcontentlength>{len(body)}</D:getcontentlength><D:resourcetype/></D:prop>"
            "<D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
            for name, body in sorted(self.files.items())
            if name.startswith(folder)
        )
        text = f'<?xml version="1.0"?><D:multistatus xmlns:D="DAV:">{found}</D:multistatus>'
        self.answer(207, text.encode(), Content_Type="application/xml")


@contextmanager
def _web(folder: Path) -> Iterator[tuple[str, Put]]:
    files: dict[str, bytes] = {}
    authority, chain, key = _certificates(folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Answers,), {"files": files}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    os.environ["SSL_CERT_FILE"] = str(authority)
    try:
        yield f"https://localhost:{server.server_port}/of", lambda name, data: files.update({f"/of/{name}": data})
    finally:
        with suppress(OSError):
            server.shutdown()
        server.server_close()
        thread.join()


def _certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Files of an authority's certificate, of one for localhost that it signed, and of the latter's key."""
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization  # optional: comes with the server of the tests
    from cryptography.hazmat.primitives.asymmetric import ec  # optional: comes with the server of the tests

    keys = [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]) for name in ("authority", "server")]
    now, written = datetime.now(UTC), []
    for number in range(2):
        builder = x509.CertificateBuilder(names[0], names[number], keys[number].public_key(), number + 1)
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(number == 0, None), critical=True)
        if number:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        path = folder / f"certificate-{number}.pem"
        path.write_bytes(builder.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        written.append(path)
    key = folder / "key.pem"
    form = serialization.PrivateFormat.PKCS8
    key.write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return written[0], written[1], key
