"""Two libraries for object stores, obstore and s3fs (of fsspec): the same files and ranges from one server, in turn.

The server speaks S3 on the loopback: moto's, as in the tests, or (--server plain) a few lines that send files from
memory, so that the clients are what is measured. Each measurement is a process of its own, so that
its peak memory is that library's; seconds are from the first request to the last byte, without imports.
    files    shard files, whole, into local files; 1 and 8 at once. obstore as `disk.objects.bucket` does it, in
             requests of 8 MiB with a SHA-256; s3fs by its `get`, with a SHA-256 of the file as it lies there then
    ranges   60 kB ranges, as of patches; 32 at once. obstore in threads, s3fs by its `cat_ranges`
s3fs is not needed otherwise: pip install s3fs.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import machine

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # as `inputs` does, which loads torch

from support.object_server import BUCKET, KEY, SECRET, ObjectServer  # of the tests

from pipeline.base.console import table
from pipeline.disk.objects.bucket import Bucket

RANGE_BYTES, RANGES_AT_ONCE = 60_000, 32
LIBRARIES = ("obstore", "s3fs")
TASKS = ("files 1", "files 8", "ranges 32")
CHILD = "--child"


class Plain(BaseHTTPRequestHandler):
    """Answers HEAD and GET, with a range or without, from memory; asks nobody for a signature."""

    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes] = {}  # noqa: RUF012  (set once, before it serves)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        data = memoryview(self.objects.get(self.path.partition("?")[0].lstrip("/"), b""))
        start, stop, code = 0, len(data), 200
        if wanted := self.headers.get("Range"):
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            start, code = int(first), 206
            stop = min(stop, int(last) + 1 if last else stop)
        self.send_response(code)
        self.send_header("Content-Length", str(stop - start))
        self.send_header("ETag", '"e"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.end_headers()
        if with_body:
            self.wfile.write(data[start:stop])

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (http.server's name)
        """Say nothing."""


def files_by_obstore(names: list[str], num_bytes: int, at_once: int, folder: Path) -> float:
    """Fetch files as G2L does; returns the seconds."""
    bucket, paths = Bucket(f"s3://{BUCKET}"), [folder / name for name in names]
    for path in paths:
        path.touch()
    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda name, path: bucket.fetch(name, num_bytes, path), names, paths))
    return time.perf_counter() - started


def files_by_s3fs(names: list[str], num_bytes: int, at_once: int, folder: Path) -> float:
    """Fetch files by the library's own way for several, and hash each; returns the seconds."""
    fs = s3fs_file_system()

    def digest(name: str) -> str:
        return hashlib.file_digest(open(folder / name, "rb"), "sha256").hexdigest()

    started = time.perf_counter()
    fs.get([f"{BUCKET}/{name}" for name in names], [str(folder / name) for name in names], batch_size=at_once)
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(digest, names))
    return time.perf_counter() - started


def ranges_by_obstore(places: list[tuple[str, int]]) -> float:
    """Read ranges in threads; returns the seconds."""
    bucket = Bucket(f"s3://{BUCKET}")
    started = time.perf_counter()
    with ThreadPoolExecutor(RANGES_AT_ONCE) as pool:
        parts = list(pool.map(lambda place: bucket.read(place[0], place[1], RANGE_BYTES), places))
    assert all(len(part) == RANGE_BYTES for part in parts)
    return time.perf_counter() - started


def ranges_by_s3fs(places: list[tuple[str, int]]) -> float:
    """Read ranges by the library's own way for several; returns the seconds."""
    fs = s3fs_file_system()
    started = time.perf_counter()
    parts = fs.cat_ranges(
        [f"{BUCKET}/{name}" for name, _ in places],
        [start for _, start in places],
        [start + RANGE_BYTES for _, start in places],
        batch_size=RANGES_AT_ONCE,
    )
    assert all(len(part) == RANGE_BYTES for part in parts)
    return time.perf_counter() - started


def s3fs_file_system() -> Any:
    """s3fs, for the server that the environment names."""
    import s3fs

    return s3fs.S3FileSystem(
        key=KEY, secret=SECRET, endpoint_url=os.environ["AWS_ENDPOINT_URL"], client_kwargs={"region_name": "us-east-1"}
    )


def child(library: str, task: str, num_files: int, num_bytes: int, num_ranges: int) -> None:
    """One measurement in this process; prints seconds and peak memory."""
    kind, at_once = task.split()
    names = [f"shard{i}" for i in range(num_files)]
    rng = random.Random(0)
    places = [(rng.choice(names), rng.randrange(num_bytes - RANGE_BYTES)) for _ in range(num_ranges)]
    with tempfile.TemporaryDirectory() as folder:
        by: dict[str, Callable[[], float]] = {
            "files obstore": lambda: files_by_obstore(names, num_bytes, int(at_once), Path(folder)),
            "files s3fs": lambda: files_by_s3fs(names, num_bytes, int(at_once), Path(folder)),
            "ranges obstore": lambda: ranges_by_obstore(places),
            "ranges s3fs": lambda: ranges_by_s3fs(places),
        }
        seconds = by[f"{kind} {library}"]()
    print(json.dumps([seconds, machine.peak_resident_bytes()]))


def measured(library: str, task: str, sizes: list[int], environment: dict[str, str]) -> tuple[float, float]:
    """Seconds, and MB of peak memory, of one measurement in a process of its own."""
    words = [sys.executable, __file__, CHILD, library, task, *map(str, sizes)]
    out = subprocess.run(words, env=os.environ | environment, stdout=subprocess.PIPE, check=True).stdout
    seconds, num_bytes = json.loads(out.splitlines()[-1])
    return seconds, num_bytes / 1e6


def start_server(kind: str, objects: dict[str, bytes]) -> tuple[dict[str, str], Callable[[], None]]:
    """The server with these objects; returns the variables that lead there, and what ends it."""
    server = ObjectServer()
    if kind == "moto":
        server.start()
        for name, data in objects.items():
            server.put(name, data)
        return server.environment, server.kill
    Plain.objects = {f"{BUCKET}/{name}": data for name, data in objects.items()}
    plain = ThreadingHTTPServer(("127.0.0.1", server.port), Plain)
    threading.Thread(target=plain.serve_forever, daemon=True).start()
    return server.environment, plain.shutdown


def main() -> None:
    """Measure in turn; print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=["plain", "moto"], default="plain")
    parser.add_argument("--files", type=int, default=12)
    parser.add_argument("--mb", type=int, default=16)
    parser.add_argument("--ranges", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    num_bytes = options.mb * 10**6
    objects = {f"shard{i}": random.Random(i).randbytes(num_bytes) for i in range(options.files)}
    environment, end = start_server(options.server, objects)
    sizes = [options.files, num_bytes, options.ranges]
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        for _ in range(options.rounds):
            for task in TASKS:
                for library in LIBRARIES:
                    found.setdefault((task, library), []).append(measured(library, task, sizes, environment))
    finally:
        end()
    rows: list[list[str]] = []
    for task in TASKS:
        seconds, memory = ([[each[i] for each in found[task, library]] for library in LIBRARIES] for i in (0, 1))
        ratio = median(b / a for a, b in zip(*seconds, strict=True))
        rows.append(
            [task, *(f"{median(each):.2f}" for each in seconds), f"{ratio:.2f}", *(f"{median(m):.0f}" for m in memory)]
        )
    print(f"{options.files} files of {options.mb} MB, {options.ranges} ranges of {RANGE_BYTES // 1000} kB; ", end="")
    print(f"server: {options.server}; {', '.join(f'{name} {metadata.version(name)}' for name in LIBRARIES)}")
    print(table(rows, ("at once", "obstore s", "s3fs s", "s3fs / obstore", "obstore MB", "s3fs MB")))
    print(f"ratio: {rows[2][3]} of ranges, which chose the library; no need")


if __name__ == "__main__":
    if sys.argv[1:2] == [CHILD]:
        child(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
    else:
        main()
