"""Which places of a list are there: files of this machine, and objects in buckets, many asked for at once."""

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.base.outside import file_trouble
from pipeline.disk.objects.bucket import AwayError, Bucket, ObjectError, ObjectFacts
from pipeline.disk.objects.places import ObjectPath

LOOKS = 32
"""Objects that are asked for at once. Our choice: an answer takes some hundredths of a second."""


class Buckets:
    """Buckets by their addresses, each opened once; safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened: dict[str, Bucket] = {}
        self._is_stopped = False

    def of(self, path: ObjectPath) -> tuple[Bucket, str]:
        """The bucket of an object, and its key.

        Raises:
            ObjectError: obstore is not installed, or does not take the address.
        """
        url, key = path.split()
        with self._lock:
            if url not in self._opened:
                self._opened[url] = Bucket(url)
                if self._is_stopped:
                    self._opened[url].stop()
            return self._opened[url], key

    def stop(self) -> None:
        """Give up what is tried again, in all threads."""
        with self._lock:
            self._is_stopped = True
            for bucket in self._opened.values():
                bucket.stop()


def look_at_objects(paths: Iterable[ObjectPath]) -> dict[ObjectPath, ObjectFacts | ObjectError]:
    """What the stores say of objects, in their order; of one that is not there, or may not be seen, an error.

    Raises:
        ObjectError: a store does not answer, or cannot be opened.
    """
    objects, buckets = list(dict.fromkeys(paths)), Buckets()

    def look(path: ObjectPath) -> ObjectFacts | ObjectError:
        bucket, key = buckets.of(path)
        try:
            return bucket.look(key)
        except AwayError:
            raise
        except ObjectError as error:
            return error

    with ThreadPoolExecutor(LOOKS, thread_name_prefix="g2l-look") as pool:
        try:
            return dict(zip(objects, pool.map(look, objects), strict=True))
        except BaseException:
            buckets.stop()
            pool.shutdown(cancel_futures=True)
            raise


def absent_places(paths: Iterable[Path]) -> dict[Path, str]:
    """The places of no file, in their order, and why: `NO_FILE`, what else is there, or of an object the store's words.

    Raises:
        ObjectError: a store does not answer, or cannot be opened.
    """
    places = list(dict.fromkeys(paths))
    looks = look_at_objects(path for path in places if isinstance(path, ObjectPath))

    def why_absent(path: Path) -> str:
        if not isinstance(path, ObjectPath):
            return file_trouble(path)
        look = looks[path]
        return str(look).removeprefix(f"{path}: ") if isinstance(look, ObjectError) else ""

    return {path: why for path in places if (why := why_absent(path))}
