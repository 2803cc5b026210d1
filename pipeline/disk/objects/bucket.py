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
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from pipeline.base.errors import G2LError

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
ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL")
INSTALL = "pip install 'g2l[objects]'"


class ObjectError(G2LError):
    """An object store cannot be read: it does not answer, or does not allow it."""


class NoObjectError(ObjectError):
    """There is no such object."""


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
                self._store = from_url(url, client_options=options, retry_config={"max_retries": 0})
        except Exception as error:  # noqa: BLE001  (obstore's, of which there are many)
            raise ObjectError(f"{url}: cannot be opened ({_words(error)})") from None

    def stop(self) -> None:
        """Give up what is tried again, in all threads."""
        self._stopped.set()

    def sizes(self) -> dict[str, int]:
        """Names and sizes of all objects, those with names that no path can have left out.

        Raises:
            ObjectError: they cannot be listed.
        """

        def listed() -> dict[str, int]:
            found = (meta for some in self._library.list(self._store) for meta in some)
            return {meta["path"]: meta["size"] for meta in found if _is_path(meta["path"])}

        return self._tried("", "listed", listed)

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

    def fetch(self, name: str, num_bytes: int, into: Path) -> str:
        """Fill the file `into`, which is there, with an object's bytes, as many as it should have or fewer; returns the
        hex SHA-256 of what came.

        Raises:
            ObjectError, NoObjectError: as `read`.
            OSError: the file cannot be written.
        """
        digest, done = hashlib.sha256(), 0
        with open(into, "r+b", buffering=0) as out:
            while done < num_bytes:
                block = self.read(name, done, min(BLOCK_BYTES, num_bytes - done))
                if not block:
                    break
                digest.update(block)
                written = 0
                while written < len(block):
                    written += out.write(block[written:])
                done += len(block)
            out.truncate(done)
        return digest.hexdigest()

    def _tried(self, name: str, verb: str, call: Callable[[], T]) -> T:
        """What `call` gives, tried again while a failure may pass.

        Raises:
            ObjectError: it does not pass.
        """
        until, pause = time.monotonic() + RETRY_SECONDS, FIRST_PAUSE
        place = f"{self.url}/{name}" if name else self.url
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
                    raise ObjectError(
                        f"{place}: access is denied, or there are no credentials ({words}). They are taken from the "
                        "environment, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or from the machine's "
                        "role; AWS_SKIP_SIGNATURE=true reads a public bucket"
                    ) from None
                if self._is_local or PERMANENT.search(str(error)):
                    raise ObjectError(f"{place}: cannot be {verb} ({words})") from None
                if time.monotonic() + pause > until:
                    raise ObjectError(
                        f"{place}: cannot be {verb} ({words}), and trying again for {RETRY_SECONDS:g} s did not "
                        "help. When the server answers, run the same command again"
                    ) from None
            self._stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _words(error: Exception) -> str:
    """What an error of obstore says, without addresses and what the server has answered."""
    first = next(iter(str(error).splitlines()), "") or type(error).__name__
    if answer := STATUS.search(first):
        return f"the server answered {answer[1].strip()}"
    return first.rpartition(" - ")[2].partition("?")[0].strip()


def _is_path(name: str) -> bool:
    """Whether an object's name can be that of a file below a folder."""
    return "\0" not in name and "\\" not in name and not {"", ".", ".."} & set(name.split("/"))
