"""Open a store where it is: in a folder, or in a bucket (s3://, gs://, az://, ...).

Of a store in a bucket the small files are fetched at once: metadata, plan, ledger. From then on it is a store whose
shard files come from `FetchedShards`. Only what was there at this moment belongs to it.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
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


@contextmanager
def open_store(path: Path, stage: StageFolder | None = None, *, tell: Tell) -> Iterator[Store]:
    """The store at a path or an address, for the time of the block; what was fetched of it is removed in the end.

    Args:
        stage: where files of a bucket may lie, and how many bytes of them; `None`: a temporary folder.
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
            stage = StageFolder(stack.enter_context(temporary_folder("g2l-store-")))
        room = StageRoom(stage)
        stack.callback(room.close)
        folder = _fetch_small(bucket, sizes, room)
        files = FetchedShards(bucket, sizes, room, folder, tell=tell)
        stack.callback(files.close)
        yield Store(folder, files)


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
