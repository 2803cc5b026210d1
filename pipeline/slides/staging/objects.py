"""Slides in a bucket: which objects they are, and copies of them that are checked before anything reads them.

A copy counts if the object was not written anew meanwhile, if it has the size that the store told, if the bytes on the
local disk, read back, have the SHA-256 of those that came, and if that is the manifest's where it gives one. Whether it
is the planned slide is compared by whoever opens it: there is no other place to read it from, so what differs must be
told of the slide, not of the copy. A copy that fails is fetched once more.

An .mrxs object has those below the folder of its name beside it, a DICOM object those of its series in its folder,
whose headers are read. Left out: Hamamatsu's .vms and .vmu, an index that only OpenSlide interprets, and DICOM slides
whose object is not called .dcm.
"""

import io
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ConfigError, SlideError
from pipeline.config.staging import StageFolder
from pipeline.disk.objects.bucket import Bucket, ObjectFacts
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.objects.present import Buckets
from pipeline.slides import dicom
from pipeline.slides.identity import HAMAMATSU, MIRAX
from pipeline.slides.staging.copies import ExpectedSlide, read_back

AT_ONCE = 8
"""Requests of one object that are made at once. Our choice: a bucket gives one stream little."""
TRIES = 2
"""How often a copy is made that comes out wrong."""
HEADER_BYTES = 1 << 18
"""Bytes that are read of an object to see of which DICOM series it is. Our choice: before a file's series stand some kB
of texts.
"""
MOST_IN_FOLDER = 1000
"""Most objects of a folder that are asked of which series they are, for each slide. Our choice: some seconds of
requests.
"""
MOUNT = "Mount the bucket as a folder (rclone mount, mountpoint-s3), and give --stage-dir"
"""What can be done about a slide that is not fetched."""


@dataclass(frozen=True)
class ObjectPart:
    """An object of a slide.

    Attributes:
        name: its path from the folder of the slide's named object.
        bucket, key: where it is.
        facts: what the store says of it.
    """

    name: str
    bucket: Bucket
    key: str
    facts: ObjectFacts

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return self.facts.num_bytes


def require_stage(paths: Iterable[Path], stage: StageFolder | None) -> None:
    """See that there is a folder to copy slides into, if one of them is in a bucket.

    Raises:
        ConfigError: there is none.
    """
    first = next((path for path in paths if isinstance(path, ObjectPath)), None)
    if first is not None and stage is None:
        raise ConfigError(
            f"{first}: a slide in a bucket is copied into a local folder before it is read, and removed after use. Say "
            "with --stage-dir where (and with --stage-gb how much may lie there)"
        )


def refuse_objects(paths: Iterable[Path], why: str) -> None:
    """Refuse slides in a bucket where they cannot be copied ahead.

    Raises:
        ConfigError: there is one; says `why`.
    """
    first = next((path for path in paths if isinstance(path, ObjectPath)), None)
    if first is not None:
        raise ConfigError(f"{first}: a slide in a bucket is read from a copy only, and {why}")


def object_parts(path: ObjectPath, buckets: Buckets) -> list[ObjectPart]:
    """The objects of the slide at `path`, the named one first.

    Raises:
        SlideError: it is of a kind of several files that are not told by their names.
        ObjectError: there is no such object, or the store does not say.
    """
    suffix = path.suffix.lower()
    if suffix in HAMAMATSU:
        raise SlideError(f"{path}: {suffix} slides are several files, which their names do not tell. {MOUNT}")
    bucket, key = buckets.of(path)
    parts = [ObjectPart(path.name, bucket, key, bucket.look(key))]
    if suffix == MIRAX:
        folder = key[: -len(suffix)]
        beside = sorted(bucket.look_below(folder).items())
        parts += [ObjectPart(f"{path.stem}/{name}", bucket, f"{folder}/{name}", facts) for name, facts in beside]
    if suffix == dicom.SUFFIX:
        keys = series_beside(path, bucket, key, parts[0].num_bytes)
        parts += [ObjectPart(key.rpartition("/")[2], bucket, key, bucket.look(key)) for key in keys]
    return parts


def series_beside(path: ObjectPath, bucket: Bucket, key: str, num_bytes: int) -> list[str]:
    """Keys of the other objects in the folder of a DICOM object, of a size, that are of its series.

    Raises:
        SlideError: it does not say of which series it is, or too many objects would have to be asked.
        ObjectError: the store does not say.
    """
    own = _series_of(bucket, key, num_bytes)
    if not own:
        raise SlideError(
            f"{path}: DICOM slides are several files, and its header does not say of which series. {MOUNT}"
        )
    folder, _, name = key.rpartition("/")
    others = {
        f"{folder}/{other}" if folder else other: size
        for other, size in bucket.sizes_in(folder).items()
        if other != name
    }
    if len(others) > MOST_IN_FOLDER:
        raise SlideError(
            f"{path}: its folder has {len(others) + 1:,} objects, each of which would be asked of which series it is. "
            f"Put each slide into a folder of its own. {MOUNT}"
        )
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="g2l-series") as pool:
        series = list(pool.map(lambda other: _series_of(bucket, *other), others.items()))
    return [other for other, uid in zip(others, series, strict=True) if uid == own]


def _series_of(bucket: Bucket, key: str, num_bytes: int) -> str:
    """UID of the DICOM series of an object, "" if it is of none."""
    header = dicom.header_of(io.BytesIO(bucket.read(key, 0, min(num_bytes, HEADER_BYTES))))
    return header.series if header else ""


def copy_objects(parts: Sequence[ObjectPart], into: Path, expected: ExpectedSlide, go_on: Callable[[], object]) -> Path:
    """Fill the files of the folder `into`, which `StageRoom.take` has made, from the objects of a slide; returns the
    copy of the named one.

    Args:
        go_on: is called before each block; may raise to stop.

    Raises:
        SlideError: the slide cannot be copied whole, or is not the manifest's.
        ObjectError: an object is gone, or cannot be read.
        OSError: the copy cannot be written.
    """
    digests = [_copy_object(part, into / part.name, expected.path, go_on) for part in parts]
    if expected.sha256 is not None and digests[0] != expected.sha256.lower():
        raise SlideError(f"{expected.path}: its SHA-256 is not the manifest's; the file is damaged or another one")
    copy = into / parts[0].name
    if copy.suffix.lower() != dicom.SUFFIX and dicom.read_header(copy) is not None:
        raise SlideError(f"{expected.path}: DICOM slides are several files. Call them .dcm, so that all are copied")
    return copy


def _copy_object(part: ObjectPart, target: Path, path: Path, go_on: Callable[[], object]) -> str:
    """Copy one object over `target`; returns the hex SHA-256 of what came. Raises as `copy_objects`."""
    why = ""
    for _ in range(TRIES):
        digest = part.bucket.fetch(part.key, part.num_bytes, target, at_once=AT_ONCE, go_on=go_on)
        now = part.bucket.look(part.key)
        came = target.stat().st_size
        if now != part.facts:
            raise SlideError(f"{path}: {part.name} was written anew while it was copied. Run the same command again")
        if came != part.num_bytes:
            why = f"{came:,} of its {part.num_bytes:,} bytes came"
        elif read_back(target, go_on) != digest:
            why = "the copy differs from what came; is the local disk sound?"
        else:
            return digest
    raise SlideError(f"{path}: {part.name} cannot be copied whole: {why}")
