"""Ways to damage a file of any kind. Each replaces the file and says whether a command that reads it must notice.

Noticed must be what makes a file unusable: cut short where its format tells its length, its head gone, another kind of
file in its place, a type or a size that cannot be. What changes single bits or bytes may pass, for it may hit padding,
a pixel, or a digit of a label: of these only no traceback, no abort and no hang are asked. A table cut short is a
shorter table.
"""

import json
import os
import pickle
import random
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

Bytes = Callable[[bytes, random.Random], bytes]
TERABYTES_29 = (29 << 40) // (4 * 64)
"""Rows of 64 float32 values that make 29 TiB."""


@dataclass(frozen=True)
class Damage:
    """A named way to damage a file.

    Attributes:
        must: a command that reads the file must notice it: exit code 1 or 3, with the file named.
        apply: puts the damaged file in the place of a whole one.
    """

    name: str
    must: bool
    apply: Callable[[Path, random.Random], None]


def damages_of(path: Path) -> list[Damage]:
    """All ways to damage a file of this name."""
    for suffixes, own in BY_SUFFIX:
        if path.suffix.lower() in suffixes:
            return list(own)
    return [*BINARY]


# --- any file ---------------------------------------------------------------------------------------------------


def rewrite(change: Bytes) -> Callable[[Path, random.Random], None]:
    """Replace a file's bytes."""

    def apply(path: Path, rng: random.Random) -> None:
        data = path.read_bytes()
        path.unlink()
        path.write_bytes(change(data, rng))

    return apply


def cut(data: bytes, rng: random.Random) -> bytes:
    """Its first part, up to nine tenths."""
    return data[: rng.randrange(1, max(2, len(data) * 9 // 10))]


def garbage(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(data))


def zero_head(data: bytes, rng: random.Random) -> bytes:
    size = min(len(data), rng.choice((8, 64, 512)))
    return bytes(size) + data[size:]


def garbage_head(data: bytes, rng: random.Random) -> bytes:
    size = min(len(data), rng.choice((8, 64, 512)))
    return rng.randbytes(size) + data[size:]


def flip_bits(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 4, 16))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_in_head(data: bytes, rng: random.Random) -> bytes:
    """Where most formats keep types, sizes and places."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 8))):
        changed[rng.randrange(min(len(changed), 256))] = rng.randrange(256)
    return bytes(changed)


def overwrite_block(data: bytes, rng: random.Random) -> bytes:
    at, size = rng.randrange(len(data)), rng.choice((4, 16, 256))
    block = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:at] + block + data[at + size :]


def drop_block(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.choice((1, 4, 64)) :]


def make_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def link_nowhere(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def link_to_itself(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def another_name(path: Path, rng: random.Random) -> None:
    """A name, or a place above, that its reader does not expect."""
    odd = ("x", "._" + path.name, path.name + ".gz", path.stem + " " + path.suffix, "\u202e\U0001f600" + path.suffix)
    names = [*odd, f"\udcff{path.suffix}", path.name.upper(), "a\nb" + path.suffix]
    path.rename((path.parent.parent if rng.random() < 0.3 else path.parent) / rng.choice(names))


CHANGES = [
    Damage("flipped bits", False, rewrite(flip_bits)),
    Damage("flipped bits", False, rewrite(flip_bits)),
    Damage("other bytes in the head", False, rewrite(flip_in_head)),
    Damage("overwritten block", False, rewrite(overwrite_block)),
    Damage("block taken out", False, rewrite(drop_block)),
    Damage("bytes behind the end", False, rewrite(lambda data, rng: data + rng.randbytes(100))),
]
REPLACED = [
    Damage("empty", True, rewrite(lambda data, rng: b"")),
    Damage("garbage", True, rewrite(garbage)),
    Damage("a text", True, rewrite(lambda data, rng: b"This is not such a file.\n" * 40)),
    Damage("a folder", True, make_folder),
    Damage("a link to nowhere", True, link_nowhere),
    Damage("a link to itself", True, link_to_itself),
]
HEADS = [Damage("zeros in the head", True, rewrite(zero_head)), Damage("garbage head", True, rewrite(garbage_head))]
NAMES = (Damage("another name", False, another_name), Damage("gone", False, lambda path, rng: path.unlink()))
BINARY = [*CHANGES, *REPLACED, *HEADS, Damage("cut", True, rewrite(cut))]


# --- text -------------------------------------------------------------------------------------------------------


def lines(change: Callable[[list[bytes], random.Random], list[bytes]]) -> Callable[[Path, random.Random], None]:
    """Change a text's lines."""
    return rewrite(lambda data, rng: b"".join(change(data.splitlines(keepends=True), rng)))


def swap_cells(rows: list[bytes], rng: random.Random) -> list[bytes]:
    """Two cells of a row below the head, or of the head."""
    at = rng.randrange(len(rows))
    mark = b"\t" if b"\t" in rows[0] else b","
    cells = rows[at].rstrip(b"\n").split(mark)
    rng.shuffle(cells)
    return [*rows[:at], mark.join(cells) + b"\n", *rows[at + 1 :]]


def drop_line(rows: list[bytes], rng: random.Random) -> list[bytes]:
    at = rng.randrange(len(rows))
    return rows[:at] + rows[at + 1 :]


def odd_cell(rows: list[bytes], rng: random.Random) -> list[bytes]:
    """Something odd in a cell."""
    at, mark = rng.randrange(1, len(rows)), b"\t" if b"\t" in rows[0] else b","
    cells = rows[at].rstrip(b"\n").split(mark)
    odd = (
        b"",
        b"nan",
        b"1e999",
        b"-1",
        b"../../etc/passwd",
        b"/",
        b"..",
        b"a\0b",
        b"\xff\xfe",
        b'"',
        "\u202e\U0001f600".encode(),
        b"x" * 5000,
        b"=1+1",
        b"9" * 400,
    )
    cells[rng.randrange(len(cells))] = rng.choice(odd)
    return [*rows[:at], mark.join(cells) + b"\n", *rows[at + 1 :]]


TABLE = [
    *CHANGES,
    *REPLACED,
    Damage("cut", False, rewrite(cut)),
    Damage("zeros in the head", True, rewrite(zero_head)),
    Damage("head is gone", True, lines(lambda rows, rng: rows[1:])),
    Damage("head only", True, lines(lambda rows, rng: rows[:1])),
    Damage("not UTF-8", True, lines(lambda rows, rng: [b"\xff\xfe" + rows[0], *rows[1:]])),
    Damage("UTF-16", True, rewrite(lambda data, rng: data.decode(errors="replace").encode("utf-16"))),
    Damage("a cell of 20 MB", True, lines(lambda rows, rng: [*rows, b"x" * (20 << 20) + b"\n"])),
    Damage("an open quote", False, lines(lambda rows, rng: [*rows, b'"a\n'])),
    Damage("a row of 50,000 cells", False, lines(lambda rows, rng: [*rows, b"a," * 50_000 + b"\n"])),
    Damage("rows twice", False, lines(lambda rows, rng: rows + rows[1:])),
    Damage("cells swapped", False, lines(swap_cells)),
    Damage("odd cell", False, lines(odd_cell)),
    Damage("odd cell", False, lines(odd_cell)),
    Damage("odd cell", False, lines(odd_cell)),
]


def change_json(change: Callable[[Any, random.Random], Any]) -> Callable[[Path, random.Random], None]:
    return rewrite(lambda data, rng: json.dumps(change(json.loads(data), rng)).encode())


def odd_value(value: Any, rng: random.Random) -> Any:
    """Another value somewhere in it, or a key less."""
    if isinstance(value, dict) and value:
        key = rng.choice(sorted(value))
        if rng.random() < 0.2:
            return {k: v for k, v in value.items() if k != key}
        return value | {key: odd_value(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], odd_value(value[at], rng), *value[at + 1 :]]
    odd = [None, -1, 0, 1e308, 10**30, "x", "", [], {}, True, float("nan"), "../..", ["x"], {"x": 1}]
    return rng.choice(odd)


def odd_coordinates(value: Any, rng: random.Random) -> Any:
    """Some of the outline of one feature, in another place or of another kind."""
    feature = rng.choice(value["features"])
    ring = feature["geometry"]["coordinates"][0]
    odd = (None, "3", 1e308, -1e308, 10**400, float("nan"), float("inf"), [], {}, True, -5, 1e9, 1e-320, 0)
    how = rng.randrange(4)
    if how == 0:
        feature["geometry"]["coordinates"] = rng.choice((ring, [[ring]], [], [[]], None, [ring * 2], [ring, ring]))
    elif how == 1:
        ring[rng.randrange(len(ring))] = rng.choice(([], [1], [1, 2, 3, 4], None, "x", [[1, 2]], {"x": 1}))
    else:
        for _ in range(rng.randrange(1, 4)):
            ring[rng.randrange(len(ring))] = [rng.choice(odd), rng.choice(odd)]
    return value


def nested_geometry(data: bytes, rng: random.Random) -> bytes:
    """Collections of geometries in each other, up to 100,000 deep."""
    found = rng.choice(list(re.finditer(rb'"geometry": (\{.*?\}), "properties"', data)))
    depth = rng.choice((1, 30, 600, 100_000))
    nested = b'{"type": "GeometryCollection", "geometries": [' * depth + found[1] + b"]}" * depth
    return data[: found.start(1)] + nested + data[found.end(1) :]


LAUGHS = b'<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>'


def odd_attribute(data: bytes, rng: random.Random) -> bytes:
    """Another value of one attribute of an element, or none."""
    found = rng.choice(list(re.finditer(rb'([\w:]+)="([^"]*)"', data)))
    odd = (b"", b"nan", b"-inf", b"1e999", b"-1", b"9" * 400, b"x", b"0x10", b"1,5", b"\xff", b"&lt;", b"a" * 100_000)
    put = rng.choice((b"", *(found[1] + b'="' + value + b'"' for value in odd)))
    return data[: found.start()] + put + data[found.end() :]


def drop_element(data: bytes, rng: random.Random) -> bytes:
    """Without one empty element, such as a point."""
    found = rng.choice(list(re.finditer(rb"<[^<>]*/>", data)))
    return data[: found.start()] + data[found.end() :]


ROOTS = (b"[]", b"3", b'"x"', b"null", b"[[]]")
JSON = [
    *CHANGES,
    *REPLACED,
    Damage("zeros in the head", True, rewrite(zero_head)),
    Damage("cut", True, rewrite(lambda data, rng: data[: rng.randrange(1, len(data.rstrip()))])),
    Damage("another root", True, rewrite(lambda data, rng: rng.choice(ROOTS))),
    Damage("100,000 lists in each other", True, rewrite(lambda data, rng: b"[" * 100_000 + b"]" * 100_000)),
    Damage("a number of 5,000 digits", True, rewrite(lambda data, rng: b"9" * 5000)),
    *[Damage("odd value", False, change_json(odd_value))] * 4,
]
GEOJSON = [
    *[damage for damage in JSON if damage.name != "another root"],
    Damage("another root", True, rewrite(lambda data, rng: rng.choice(ROOTS[1:]))),
    Damage("odd coordinates", False, change_json(odd_coordinates)),
    Damage("odd coordinates", False, change_json(odd_coordinates)),
    Damage("features twice", False, change_json(lambda value, rng: value | {"features": value["features"] * 2})),
    Damage("rings in each other", False, rewrite(nested_geometry)),
]
XML = [
    *CHANGES,
    *REPLACED,
    *HEADS,
    Damage("cut", True, rewrite(lambda data, rng: data[: rng.randrange(1, len(data.rstrip()))])),
    Damage("another root", True, rewrite(lambda data, rng: b"<svg><rect width='4'/></svg>")),
    Damage("entities", True, rewrite(lambda data, rng: LAUGHS + data)),
    Damage("100,000 elements in each other", True, rewrite(lambda data, rng: b"<a>" * 100_000 + b"</a>" * 100_000)),
    *[Damage("odd attribute", False, rewrite(odd_attribute))] * 4,
    Damage("an element is gone", False, rewrite(drop_element)),
]
TOML = [
    *CHANGES,
    *REPLACED,
    Damage("zeros in the head", True, rewrite(zero_head)),
    Damage("cut", False, rewrite(cut)),
    Damage("not UTF-8", True, rewrite(lambda data, rng: b"\xff\xfe" + data)),
    Damage("100,000 lists in each other", True, rewrite(lambda data, rng: data + b"x = " + b"[" * 100_000 + b"\n")),
    Damage("a line is gone", False, lines(drop_line)),
]
LOG = [*CHANGES, *REPLACED[1:], Damage("cut", False, rewrite(cut))]


# --- sizes and types that cannot be -----------------------------------------------------------------------------


def claim_hdf5(path: Path, rng: random.Random) -> None:
    """The same names, with a shape of 29 TiB and no data: a file of a few kB."""
    with h5py.File(path, "r") as f:
        names = [name for name in f if isinstance(f[name], h5py.Dataset)]
        attributes = dict(f.attrs)
    path.unlink()
    with h5py.File(path, "w") as f:
        f.attrs.update(attributes)
        for name in names or ["features"]:
            f.create_dataset(name, (TERABYTES_29, 64), np.float32, chunks=(1024, 64))


def retype_hdf5(path: Path, rng: random.Random) -> None:
    """The same names, as strings, single numbers, compounds or references."""
    with h5py.File(path, "r") as f:
        names = [name for name in f if isinstance(f[name], h5py.Dataset)]
    path.unlink()
    with h5py.File(path, "w") as f:
        for name in names or ["features"]:
            odd = [
                ["a", "b"],
                3.0,
                np.zeros(2, [("x", "f4")]),
                np.zeros((2, 3, 4, 5)),
                h5py.Empty("f4"),
                np.full((4, 8), np.nan, np.float32),
                np.zeros((0, 8), np.float32),
                np.zeros((4, 8), np.complex64),
            ]
            f[name] = rng.choice(odd)


def group_hdf5(path: Path, rng: random.Random) -> None:
    """The same names, as groups."""
    with h5py.File(path, "r") as f:
        names = list(f)
    path.unlink()
    with h5py.File(path, "w") as f:
        for name in names:
            f.create_group(name)


def claim_safetensors(path: Path, rng: random.Random) -> None:
    """A header's length, or a tensor's place or shape, that cannot be."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + size])
    name = rng.choice([key for key in header if key != "__metadata__"])
    how = rng.randrange(4)
    if how == 0:
        changed = struct.pack("<Q", rng.choice((2**63 - 1, 2**40, len(data)))) + data[8:]
    else:
        odd = ({"shape": [2**40, 2**20]}, {"data_offsets": [0, 2**50]}, {"dtype": "F99"})[how - 1]
        text = json.dumps(header | {name: header[name] | odd}).encode()
        changed = struct.pack("<Q", len(text)) + text + data[8 + size :]
    path.unlink()
    path.write_bytes(changed)


def claim_png(path: Path, rng: random.Random) -> None:
    """A picture that says it has 2**62 pixels, or 40,000 by 40,000, with a right checksum."""
    side = rng.choice((2**31 - 1, 40_000))
    head = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = b"IDAT" + zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in (head, body, b"IEND")
    )
    path.unlink()
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def postscript(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n%%EOF\n")


def claim_tiff(path: Path, rng: random.Random) -> None:
    """Sides of 2**31 pixels, of the picture or of its tiles if it has some, in every page."""
    data = bytearray(path.read_bytes())
    of_picture, of_tiles = (256, 257), (322, 323)
    sides = rng.choice((of_picture, of_tiles))
    entries: list[tuple[int, int]] = []
    (at,) = struct.unpack_from("<I", data, 4)
    while at:
        (count,) = struct.unpack_from("<H", data, at)
        places = [at + 2 + 12 * i for i in range(count)]
        entries += [(*struct.unpack_from("<H", data, entry), entry) for entry in places]
        (at,) = struct.unpack_from("<I", data, at + 2 + 12 * count)
    if not {code for code, _ in entries} & set(sides):
        sides = of_picture
    for code, entry in entries:
        if code in sides:
            struct.pack_into("<HII", data, entry + 2, 4, 1, 2**31 - 16)
    path.unlink()
    path.write_bytes(data)


def claim_npz(path: Path, rng: random.Random) -> None:
    """An array of 29 TiB, or of Python objects, in place of each."""
    with np.load(path) as arrays:
        names = arrays.files
    path.unlink()
    kind = rng.choice(
        (f"'<f4', 'fortran_order': False, 'shape': ({TERABYTES_29}, 64)", "'|O', 'fortran_order': False, 'shape': (2,)")
    )
    text = ("{'descr': " + kind + ", }").ljust(117) + "\n"
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(
                f"{name}.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + bytes(64)
            )


class _Calls:
    """What a pickle does when it is loaded: leaves a file behind."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


OWNED = "owned-by-a-pickle"
"""File beside the damaged one that must not come into being."""


def hostile_pickle(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.write_bytes(pickle.dumps(_Calls(path.parent / OWNED)))


def other_pickle(path: Path, rng: random.Random) -> None:
    """A bare pickle, or torch's archive, of something else."""
    import torch

    value = rng.choice([3, "x", [], {}, {"a": 1}, torch.zeros(3), torch.zeros(0, 3), None, {"a": torch.zeros(2)}])
    path.unlink()
    torch.save(value, path)


def archive_member(path: Path, rng: random.Random) -> None:
    """An archive in which one member is cut."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    victim = rng.choice(sorted(members))
    path.unlink()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, cut(data, rng) if name == victim and data else data)


def bomb(path: Path, rng: random.Random) -> None:
    """An archive whose one file unpacks to 300 MB."""
    path.unlink()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a.geojson", "w") as f:
        for _ in range(300):
            f.write(bytes(1_000_000))


HDF5 = [
    *BINARY,
    Damage("claims 29 TiB", True, claim_hdf5),
    Damage("other types", True, retype_hdf5),
    Damage("other types", True, retype_hdf5),
    Damage("groups for arrays", True, group_hdf5),
]
TORCH = [
    *BINARY,
    Damage("a pickle that calls", True, hostile_pickle),
    Damage("another value", True, other_pickle),
    Damage("another value", True, other_pickle),
    Damage("a cut member", False, archive_member),
]
BY_SUFFIX: list[tuple[Iterable[str], list[Damage]]] = [
    ((".csv", ".tsv", ".txt"), TABLE),
    ((".json",), JSON),
    ((".geojson",), GEOJSON),
    ((".xml", ".annotations"), XML),
    ((".zip",), [*BINARY, Damage("a cut member", True, archive_member), Damage("a bomb", True, bomb)]),
    ((".jsonl",), LOG),
    ((".toml",), TOML),
    ((".h5", ".hdf5"), HDF5),
    ((".pt",), TORCH),
    ((".npz",), [*BINARY, Damage("absurd arrays", True, claim_npz)]),
    ((".safetensors",), [*BINARY, *[Damage("absurd header", True, claim_safetensors)] * 3]),
    ((".png",), [*BINARY, *[Damage("absurd size", True, claim_png)] * 2, Damage("PostScript", True, postscript)]),
    ((".svs", ".tif", ".tiff"), [*BINARY, *[Damage("absurd size", True, claim_tiff)] * 2]),
]
"""Ways by the ending of a file's name; other files get those of `BINARY`."""
