"""Read from an object store: what lies below an address, a range of bytes, and whole objects into files.

The one module that imports obstore, an optional package (decision 0063). Credentials come from the environment or from
the machine's role, as obstore reads them, and are in no message: of a library's error the first line is told, without
what the server has answered. What fails for a reason that may pass, as a server that is away, is tried again for some
minutes.
"""

import hashlib
import os
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from pipeline.base.errors import G2LError
from pipeline.disk.objects.places import WEB

T = TypeVar("T")
BLOCK_BYTES = 1 << 23
"""Bytes of one request. Our choice: a request of 8 MiB costs little beside its bytes, and is soon made again."""
REQUEST_SECONDS, CONNECT_SECONDS = 60, 10
"""Longest time of one request, and until it is answered at all. Our choice: 8 MiB at 140 kB/s."""
RETRY_SECONDS = 180.0
"""How long to try again while a server does not answer. Our choice: a server that was restarted is back by then."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0
"""Seconds between tries; each pause is twice the one before."""
PERMANENT = re.compile(r"status code: 4(?!08|25|29)\d\d")
"""Answers that another try will not change: 400 to 499 but for those that mean "later"."""
STATUS = re.compile(r"status code: (\d{3}[A-Za-z -]*)")
CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the machine's role; AWS_SKIP_SIGNATURE=true reads a "
    "public bucket",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS or GOOGLE_SERVICE_ACCOUNT, or from the machine's role; "
    "GOOGLE_SKIP_SIGNATURE=true reads a public bucket",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY, or from the machine's identity; "
    "AZURE_SKIP_SIGNATURE=true reads a public container",
}
CREDENTIALS |= {"abfs": CREDENTIALS["az"], "abfss": CREDENTIALS["az"]}
"""By the kind of an address, the variables that an error names."""
ENDPOINTS = (
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT",
    "AZURE_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
    "GOOGLE_BASE_URL",
)
INSTALL = "pip install 'g2l[objects]'"


class ObjectError(G2LError):
    """An object store cannot be read: it does not answer, or does not allow it."""


class NoObjectError(ObjectError):
    """There is no such object."""


class AwayError(ObjectError):
    """The server did not answer, for as long as it was tried."""


@dataclass(frozen=True)
class ObjectFacts:
    """What a store says of an object: its bytes, when it was written (seconds since 1970), and what tells it from
    another one that is written in its place.
    """

    num_bytes: int
    modified: float
    version: str


class Bucket:
    """What lies below an address; safe to use from many threads. Names are those below it: "plan/zarr.json".

    Args:
        url: the address, a `readable_url`.

    Raises:
        ObjectError: obstore is not installed, or does not take the address.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._stopped = threading.Event()
        self._is_local = url.startswith("file:")
        self._kind = url.partition(":")[0]
        # obstore names what a web server lists from the server's root on
        self._above = unquote(urlsplit(url).path).strip("/") + "/" if self._kind == WEB else ""
        try:
            import obstore  # optional: an extra
            from obstore.store import from_url  # optional: an extra
        except ImportError:
            raise ObjectError(f"{url}: object stores are read by the package obstore: {INSTALL}") from None
        plain = any(os.environ.get(name, "").startswith("http://") for name in ENDPOINTS)
        options: Any = {"timeout": timedelta(seconds=REQUEST_SECONDS), "allow_http": plain}
        options["connect_timeout"] = timedelta(seconds=CONNECT_SECONDS)
        self._library = obstore
        try:
            if self._is_local:
                self._store: Any = from_url(url)
            else:
                address = url if self._kind == WEB else url.replace("%", "%25")  # which obstore would take for a code
                self._store = from_url(address, client_options=options, retry_config={"max_retries": 0})
        except Exception as error:  # noqa: BLE001  (obstore's, of which there are many)
            raise ObjectError(f"{url}: cannot be opened ({_words(error)})") from None

    def stop(self) -> None:
        """Give up what is tried again, in all threads."""
        self._stopped.set()

    def sizes(self) -> dict[str, int]:
        """Names and sizes of all objects, those with names that no path can have, and folders, left out.

        Raises:
            ObjectError: they cannot be listed.
        """

        def listed() -> dict[str, int]:
            found = (meta for some in self._library.list(self._store) for meta in some)
            sizes = {meta["path"].removeprefix(self._above): meta["size"] for meta in found}
            sizes = {name: size for name, size in sizes.items() if _is_path(name)}
            folders = _folders_of(sizes)
            return {name: size for name, size in sizes.items() if name not in folders}

        return self._tried("", "listed", listed)

    def look(self, name: str) -> ObjectFacts:
        """What the store says of an object.

        Raises:
            NoObjectError: there is no such object.
            ObjectError: the store does not say.
        """
        return self._tried(name, "looked at", lambda: _facts(self._library.head(self._store, name)))

    def look_below(self, prefix: str) -> dict[str, ObjectFacts]:
        """The same of all objects below a folder, by their names from there; those with names that no path can have,
        and folders, left out.

        Raises:
            ObjectError: they cannot be listed.
        """

        def listed() -> dict[str, ObjectFacts]:
            found = (meta for some in self._library.list(self._store, prefix=prefix) for meta in some)
            below = {name: _facts(meta) for name, meta in _names_below(f"{self._above}{prefix}/", found)}
            folders = _folders_of(below)
            return {name: facts for name, facts in below.items() if name not in folders}

        facts_of = self._tried(prefix, "listed", listed)
        return {
            name: facts for name, facts in facts_of.items() if facts.num_bytes or self._is_there(f"{prefix}/{name}")
        }

    def _is_there(self, name: str) -> bool:
        """Whether there is such an object: a folder that holds nothing is listed by a name that it does not have."""
        try:
            self.look(name)
        except NoObjectError:
            return False
        return True

    def sizes_in(self, folder: str) -> dict[str, int]:
        """Names and sizes of the objects directly in a folder, "" for the address itself, ascending by name; those that
        no path can have left out.

        Raises:
            ObjectError: they cannot be listed.
        """

        def listed() -> dict[str, int]:
            found = self._library.list_with_delimiter(self._store, prefix=folder or None)["objects"]
            above = f"{self._above}{folder}/" if folder else self._above
            sizes = sorted((name, meta["size"]) for name, meta in _names_below(above, found))
            return {name: size for name, size in sizes if "/" not in name}

        return self._tried(folder, "listed", listed)

    def read(self, name: str, start: int, length: int) -> bytes:
        """`length` bytes of an object, fewer where it ends.

        Raises:
            NoObjectError: there is no such object.
            ObjectError: it cannot be read.
        """
        if not length:
            return b""
        return self._tried(
            name, "read", lambda: bytes(self._library.get_range(self._store, name, start=start, length=length))
        )

    def fetch(
        self, name: str, num_bytes: int, into: Path, *, at_once: int = 1, go_on: Callable[[], object] = lambda: None
    ) -> str:
        """Fill the file `into`, which is there, with an object's bytes, as many as it should have or fewer; returns the
        hex SHA-256 of what came.

        Args:
            at_once: requests that are made at once.
            go_on: is called before each block is written; may raise to stop.

        Raises:
            ObjectError, NoObjectError: as `read`.
            OSError: the file cannot be written.
        """
        digest, done = hashlib.sha256(), 0
        with open(into, "r+b", buffering=0) as out, closing(self._blocks(name, num_bytes, at_once)) as blocks:
            for block in blocks:
                go_on()
                digest.update(block)
                written = 0
                while written < len(block):
                    written += out.write(block[written:])
                is_short = len(block) < min(BLOCK_BYTES, num_bytes - done)
                done += len(block)
                if is_short:
                    break
            out.truncate(done)
        return digest.hexdigest()

    def _blocks(self, name: str, num_bytes: int, at_once: int) -> Generator[bytes, None, None]:
        """An object's bytes in blocks, asked for ahead; raises as `read`."""
        ranges = [(start, min(BLOCK_BYTES, num_bytes - start)) for start in range(0, num_bytes, BLOCK_BYTES)]
        if at_once < 2 or len(ranges) < 2:
            yield from (self.read(name, start, length) for start, length in ranges)
            return
        with ThreadPoolExecutor(at_once, thread_name_prefix="g2l-fetch") as pool:
            asked: deque[Future[bytes]] = deque()
            try:
                for start, length in ranges:
                    asked.append(pool.submit(self.read, name, start, length))
                    if len(asked) == at_once:
                        yield asked.popleft().result()
                while asked:
                    yield asked.popleft().result()
            finally:
                for future in asked:
                    future.cancel()

    def _tried(self, name: str, verb: str, call: Callable[[], T]) -> T:
        """What `call` gives, tried again while a failure may pass.

        Raises:
            ObjectError: it does not pass.
        """
        until, pause = time.monotonic() + RETRY_SECONDS, FIRST_PAUSE
        between = "" if not name or self.url.endswith("/") else "/"
        place = f"{self.url}{between}{name}"
        while True:
            if self._stopped.is_set():
                raise ObjectError(f"{place}: given up, for the command ends")
            try:
                return call()
            except FileNotFoundError:
                raise NoObjectError(f"{place}: no such object") from None
            except Exception as error:  # noqa: BLE001  (obstore's, of which there are many)
                kind, words = type(error).__name__, _words(error)
                is_denied = kind in ("PermissionDeniedError", "UnauthenticatedError", "PermissionError")
                if is_denied or "169.254.169.254" in str(error):
                    raise ObjectError(f"{place}: {self._denied(words)}") from None
                if self._is_local or PERMANENT.search(str(error)):
                    raise ObjectError(f"{place}: cannot be {verb} ({words})") from None
                if time.monotonic() + pause > until:
                    raise AwayError(
                        f"{place}: cannot be {verb} ({words}), and trying again for {RETRY_SECONDS:g} s did not "
                        "help. When the server answers, run the same command again"
                    ) from None
            self._stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _denied(self, words: str) -> str:
        """What to say where access is denied, and the server has said `words`."""
        if (variables := CREDENTIALS.get(self._kind)) is None:
            return f"access is denied ({words})"
        return (
            f"access is denied, or there are no credentials ({words}). They are taken from the environment, such as "
            f"{variables}"
        )


def _words(error: Exception) -> str:
    """What an error of obstore says, without addresses and what the server has answered."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    if answer := STATUS.search(first):
        return f"the server answered {answer[1].strip()}"
    return first.rpartition(" - ")[2].partition("?")[0].strip()


def _facts(meta: Mapping[str, Any]) -> ObjectFacts:
    """What obstore's record of an object says."""
    modified = meta["last_modified"].timestamp()
    return ObjectFacts(meta["size"], modified, meta.get("version") or meta.get("e_tag") or repr(modified))


def _names_below(above: str, listed: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The records of what was listed below a folder, `above` with its slash, by their names from there; without the
    folder itself, which some clients put there as an object, and names that no path can have.
    """
    for meta in listed:
        name = meta["path"].removeprefix(above)
        if meta["path"].startswith(above) and _is_path(name):
            yield name, meta


def _folders_of(names: Iterable[str]) -> set[str]:
    """The folders that objects of these names lie in. Clients (S3's console, s3fs, Hadoop) put empty objects there that
    are called as the folder and a slash; obstore lists them without it.
    """
    folders = set[str]()
    for name in names:
        above = name.rpartition("/")[0]
        while above and above not in folders:
            folders.add(above)
            above = above.rpartition("/")[0]
    return folders


def _is_path(name: str) -> bool:
    """Whether an object's name can be that of a file below a folder."""
    return "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
