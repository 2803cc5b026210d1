"""Small files that tests write."""

from pathlib import Path

GDC_HEADER = "id\tfilename\tmd5\tsize\tstate\n"


def gdc_line(name: str, gdc_id: str = "d46167af") -> str:
    """A line of a GDC download manifest."""
    return f"{gdc_id}\t{name}\te2ae6d54\t1706305510\treleased\n"


def put(path: Path, content: str | bytes) -> Path:
    """Write a file, and the folders that it lies in; returns `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def write(folder: Path, text: str | bytes, name: str = "manifest.csv") -> Path:
    return put(folder / name, text)


def touch(folder: Path, *names: str) -> None:
    """Write empty files."""
    for name in names:
        put(folder / name, b"")


def write_table(path: Path, head: str, rows: list[str]) -> Path:
    """Write lines below a line of column names; returns `path`."""
    return put(path, "\n".join([head, *rows]) + "\n")
