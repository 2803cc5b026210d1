"""Places of slides: a path of this machine, or the address of an object in a bucket.

A manifest and `--slides-root` may say either. An address goes where a path goes, as an `ObjectPath`; whoever reads
slides asks for it, and copies the object first (`slides.staging`). Keys are taken as they are written, nothing in them
is decoded, but for `https://`, whose addresses are encoded.
"""

import os
from collections.abc import Iterable
from pathlib import Path, PosixPath
from urllib.parse import unquote

from pipeline.base.errors import ConfigError
from pipeline.disk.file_names import file_named
from pipeline.disk.objects.urls import as_url, readable_url, shown_url

MAX_NAME_BYTES = 255
"""Longest name of a file: an object is copied into one of its key's last name."""
WEB = "https"
"""The kind of addresses whose names are encoded, and which have no bucket."""


class ObjectPath(PosixPath):
    """The address of an object; as text it is the address. No function that opens files finds one there."""

    def __str__(self) -> str:
        plain = super().__str__()
        return as_url(plain) or plain

    def absolute(self) -> "ObjectPath":
        """The address itself: it does not depend on the working folder."""
        return self

    def split(self) -> tuple[str, str]:
        """The address of the bucket (of `https://`, of the folder), and the object's key there."""
        kind, _, rest = str(self).partition("://")
        if kind == WEB:
            folder, _, name = rest.rpartition("/")
            return f"{kind}://{folder}", unquote(name)
        bucket, _, key = rest.partition("/")
        return f"{kind}://{bucket}" + ("/" if kind == "file" else ""), key


def as_place(text: Path | str) -> Path:
    """A path, or the address that it is."""
    return Path(text) if as_url(text) is None else ObjectPath(text)


def place_below(root: Path, name: str) -> Path:
    """Where a slide is that a table names: `name` itself if it is an address or an absolute path, else below `root`.
    Finds the file if only the encoding of accents in its name differs; keys are exact.
    """
    if as_url(name) is not None:
        return ObjectPath(name)
    if as_url(root) is not None and not os.path.isabs(name):
        return ObjectPath(root, name)
    return file_named(Path(root) / name)


def real_name(path: Path) -> str:
    """What tells a place from others, whatever links lead there: its real path, or its address."""
    return str(path) if isinstance(path, ObjectPath) else os.path.realpath(path)


def why_no_slide(path: Path) -> str:
    """What to say where no file of a slide is."""
    if isinstance(path, ObjectPath):
        return "a slide in a bucket is read from a copy only: give --stage-dir where the command has it, or copy it"
    return "no such slide, or no permission to read its folder"


def say_where(names: Iterable[str]) -> str:
    """What to do where slides are not, which the manifest calls so: of full paths and addresses `--slides-root` says
    nothing.
    """
    if not all(os.path.isabs(name) or as_url(name) is not None for name in names):
        return "say with --slides-root where they are now"
    return (
        "the manifest has their full paths, which --slides-root leaves as they are. Make a link at the old place, or "
        "write the new paths into the manifest; `g2l plan` then gives the same plan, and a store of it goes on"
    )


def place_trouble(root: Path, name: str) -> str:
    """Why a slide that a table names cannot be fetched by its address; empty if it can be, or is no address."""
    if as_url(name) is not None:
        return _address_trouble(name)
    above = as_url(root)
    return "" if above is None or os.path.isabs(name) else _address_trouble(f"{above}/{name}")


def _address_trouble(text: str) -> str:
    """What is wrong with the address of an object, as it was written; empty if it can be fetched."""
    kind, _, rest = text.partition(":/")
    kind, shown = kind.lower(), _shown(text)
    try:
        readable_url(as_url(text if kind == WEB else text.replace("#", "_")) or "")  # in a key it is a letter
    except ConfigError as error:
        return f"path {error}"
    except ValueError:
        return f"path {shown} is no address"
    parts = rest.lstrip("/").split("/") if kind == "file" else rest.removeprefix("/").split("/")
    if len(parts) < (1 if kind == "file" else 2) or not parts[-1]:
        return f"path {shown} names no object; a slide is s3://BUCKET/KEY"
    if {"", ".", ".."} & set(parts):
        return f"path {shown}: an empty name, '.' or '..' in a key leads elsewhere as a path; rename the object"
    if not text.isprintable() or "\\" in text:
        return f"path {shown!a}: a key with a backslash or a character that does not print; rename the object"
    if len(parts[-1].encode()) > MAX_NAME_BYTES:
        return f"path {shown}: the name is longer than {MAX_NAME_BYTES} bytes, and no file can have it"
    return ""


def _shown(text: str) -> str:
    """An address as it may be shown, also one that is none."""
    try:
        return shown_url(as_url(text) or text)
    except ValueError:
        return text.partition("://")[0] + "://..."
