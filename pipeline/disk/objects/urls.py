"""Addresses of object stores on the command line: which are opened, and that no password is shown or kept.

A command line's `s3://bucket/store.zarr` becomes a `Path`, as every other argument, and loses a slash by that;
`as_url` gives it back. Credentials come from the environment alone.
"""

from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipeline.base.errors import ConfigError

OPENED = ("s3", "gs", "az", "abfs", "abfss", "https", "file")
"""Kinds of addresses that can be read from."""
OTHERS = ("http", "s3a", "gcs", "azure", "adl", "ftp", "ftps", "sftp", "ssh", "hdfs", "dav", "davs", "webdav", "memory")
"""Kinds that are known as addresses, so as to be refused in words; any other one may be the name of a folder."""
NAME_BEFORE_HOST = ("abfs", "abfss")
"""Kinds with the name of a container where others have a user's."""


def as_url(path: Path | str) -> str | None:
    """The address that was typed, if it was one; `None` for a path."""
    scheme, colon, rest = str(path).partition(":/")
    scheme = scheme.lower()
    if not colon or scheme not in OPENED + OTHERS:
        return None
    return f"{scheme}://{'/' if scheme == 'file' else ''}{rest.strip('/')}"


def shown_url(url: str) -> str:
    """An address without what may be secret in it: a user's name and password, and all from a question mark on."""
    parts = urlsplit(url)
    keeps_name = parts.scheme in NAME_BEFORE_HOST and parts.password is None
    host = parts.netloc if keeps_name else parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def readable_url(url: str) -> str:
    """The address itself, if it can be read from.

    Raises:
        ConfigError: it is of another kind, or holds what may be secret, which is not shown.
    """
    scheme, shown = url.partition(":")[0], shown_url(url)
    if scheme not in OPENED:
        kinds = ", ".join(f"{each}://" for each in OPENED)
        raise ConfigError(f"{shown}: such addresses are not opened; those that are begin with {kinds}")
    if shown != url:
        raise ConfigError(
            f"{shown}: this address holds a user, a password, '?' or '#' besides, which would come into records and "
            "messages. Give the plain address, and credentials through the environment (AWS_ACCESS_KEY_ID, ...)"
        )
    return url


def absolute(path: Path) -> str:
    """A path as it is recorded: absolute, an address as it was typed."""
    return as_url(path) or str(path.absolute())


def require_local(name: str, path: Path | str) -> None:
    """See that an argument or option is a path of this machine.

    Raises:
        ConfigError: it is an address of an object store.
    """
    url = as_url(path)
    if url is None:
        return
    shown, called = shown_url(url), name.replace("_", "-") if name.startswith("--") else name
    if name == "out":
        raise ConfigError(
            f"--out {shown}: outputs are written to a local folder. Half-written files, the ledger of a store and the "
            "rule of one writer at a time rest on fsync, renaming and locks, which object stores do not have. Write to "
            "a local folder, then copy it there: for a store, shard files first and the ledger last (docs/scale.md has "
            "the commands)"
        )
    if name in ("--slides_root", "slides"):
        raise ConfigError(
            f"{called} {shown}: plan, extract-teacher and embed read slides in a bucket, by the "
            "paths of a manifest or with --slides-root. Elsewhere, copy them to a folder, or mount the bucket as one"
        )
    raise ConfigError(
        f"{called} {shown}: only train-student, inspect and verify open a store at such an address. "
        "Copy it to a local folder first, or mount the bucket as one"
    )
