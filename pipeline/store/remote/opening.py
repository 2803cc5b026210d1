"""Open a store where it is: in a folder, or in a bucket (s3://, gs://, az://, ...).

Of a store in a bucket the small files are fetched at once: metadata, plan, ledger. From then on it is a store whose
shard files come from `FetchedShards`. Only what was there at this moment belongs to it.
"""

import os
import stat
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from pipeline.base.console import Tell
from pipeline.base.errors import G2LError, StoreError
from pipeline.base.outside import MOST_TEXT_BYTES
from pipeline.base.units import format_bytes
from pipeline.config.staging import StageFolder
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.disk.files import temporary_folder
from pipeline.disk.objects.bucket import Bucket
from pipeline.disk.objects.urls import as_url, readable_url
from pipeline.disk.raw_arrays import METADATA
from pipeline.slides.staging.room import StageRoom
from pipeline.store.remote.fetched import REQUESTS, FetchedShards, ObjectFile
from pipeline.store.store import Store

OWN_FOLDER = "g2l-store-"
"""Name of a user's temporary folder of stores, before the user's number."""


@contextmanager
def open_store(path: Path, stage: StageFolder | None = None, *, tell: Tell) -> Iterator[Store]:
    """The store at a path or an address, for the time of the block; what was fetched of it is removed in the end.

    Args:
        stage: where files of a bucket may lie, and how many bytes of them; `None`: this user's temporary folder.
        tell: is told of what is not fetched.

    Raises:
        StoreError: no store, or a damaged one.
        ObjectError: the bucket cannot be read.
        ConfigError: the address cannot be.
    """
    url = as_url(path)
    if url is None:
        yield Store(path)
        return
    bucket = Bucket(readable_url(url))
    sizes = bucket.sizes()
    if METADATA not in sizes:
        raise StoreError(f"{url}: no such store. `g2l extract-teacher` makes one, in a local folder")
    with ExitStack() as stack:
        if stage is None:
            stage = StageFolder(stack.enter_context(_own_folder()))
        room = StageRoom(stage)
        stack.callback(room.close)
        folder = _fetch_small(bucket, sizes, room)
        files = FetchedShards(bucket, sizes, room, folder, tell=tell)
        stack.callback(files.close)
        yield Store(folder, files)


@contextmanager
def _own_folder() -> Iterator[Path]:
    """A temporary folder of this user, the same one for all commands: so they share its bound, and whoever comes next
    removes what killed ones left. If its name is taken by others, a new folder that is removed after the block.

    Raises:
        G2LError: there is no place for temporary files.
    """
    try:
        folder = Path(tempfile.gettempdir(), f"{OWN_FOLDER}{os.geteuid()}")
    except OSError as error:
        raise G2LError(
            f"no folder for temporary files can be written ({error.strerror}). Give one as --stage-dir"
        ) from None
    with suppress(OSError):
        folder.mkdir(mode=0o700)
    if _is_private(folder):
        yield folder
        return
    with temporary_folder(OWN_FOLDER) as folder:
        yield folder


def _is_private(folder: Path) -> bool:
    """Whether it is a folder of this user, no link, that nobody else may read or change: anyone can make a name in the
    folder for temporary files.
    """
    try:
        status = os.lstat(folder)
    except OSError:
        return False
    is_own = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
    return is_own and not stat.S_IMODE(status.st_mode) & 0o077


def is_small(name: str) -> bool:
    """Whether an object is read when the store is opened: metadata, the plan and the ledger."""
    is_half_written = any(part.endswith(ASIDE_SUFFIX) for part in name.split("/"))
    return not is_half_written and (name.startswith("plan/") or name.endswith(".json"))


def _fetch_small(bucket: Bucket, sizes: dict[str, int], room: StageRoom) -> Path:
    """Fetch the small files of a store; returns their folder, the store's on this machine.

    Raises:
        G2LError: there is no room for them, or they cannot be read.
    """
    small = [ObjectFile(name, size) for name, size in sizes.items() if is_small(name)]
    if large := [file.name for file in small if file.name.endswith(".json") and file.num_bytes > MOST_TEXT_BYTES]:
        raise StoreError(f"{bucket.url}/{large[0]}: not a store of G2L (a text of {format_bytes(sizes[large[0]])})")
    folder = room.take(small)
    if folder is None:
        needed = format_bytes(sum(file.num_bytes for file in small))
        raise G2LError(
            f"{bucket.url}: there is no room in {room.folder} for the {needed} of its metadata, plan and ledger. Give "
            "--stage-dir a larger disk, or --stage-gb a larger number"
        )
    with ThreadPoolExecutor(REQUESTS, thread_name_prefix="g2l-fetch") as pool:
        list(pool.map(lambda file: bucket.fetch(file.name, file.num_bytes, folder / file.name), small))
    return folder
