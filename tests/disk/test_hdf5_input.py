"""HDF5 files that would have something else read, or that claim what they have not."""

import errno
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray
from support.damage import claim_32_tib
from support.failing import failing, os_error

from pipeline.base import outside
from pipeline.base.errors import BenchmarkError, PlanError
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.disk.hdf5_input import attribute, attributes, look_at, open_hdf5
from pipeline.features.files import read_arrays, read_attributes, read_coords, write_arrays
from pipeline.features.read import read_features

SECRET = b"root:x:0:0:secret\n" * 8
FEATURES = np.random.default_rng(0).standard_normal((6, 4), dtype=np.float32)


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    path = tmp_path / "passwd"
    path.write_bytes(SECRET)
    return path


def external_storage(f: h5py.File, name: str, secret: Path) -> None:
    f.create_dataset(name, (4, 8), "uint8", external=[(str(secret), 0, 32)])


def external_link(f: h5py.File, name: str, secret: Path) -> None:
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["data"] = FEATURES
    f[name] = h5py.ExternalLink(str(secret.with_name("other.h5")), "/data")


def soft_link_out(f: h5py.File, name: str, secret: Path) -> None:
    external_link(f, "way_out", secret)
    f[name] = h5py.SoftLink("/way_out")


def group_link_out(f: h5py.File, name: str, secret: Path) -> None:
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["data"] = FEATURES
    f["out"] = h5py.ExternalLink(str(secret.with_name("other.h5")), "/")
    f[name] = h5py.SoftLink("out/data")


def virtual(f: h5py.File, name: str, secret: Path) -> None:
    with h5py.File(secret.with_name("other.h5"), "w") as other:
        other["data"] = FEATURES
    layout = h5py.VirtualLayout((6, 4), "float32")
    layout[:] = h5py.VirtualSource(str(secret.with_name("other.h5")), "data", (6, 4))
    f.create_virtual_dataset(name, layout)


def references(f: h5py.File, name: str, secret: Path) -> None:
    f.create_dataset(name, data=np.array([[f.ref, f.ref]], dtype=h5py.ref_dtype))


def text_of_any_length(f: h5py.File, name: str, secret: Path) -> None:
    f.create_dataset(name, data=["a", "b"], dtype=h5py.string_dtype())


def circle(f: h5py.File, name: str, secret: Path) -> None:
    f[name] = h5py.SoftLink("/round")
    f["round"] = h5py.SoftLink(f"/{name}")


def plugin_filter(f: h5py.File, name: str, secret: Path) -> None:
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_chunk((6, 4))
    properties.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, ())  # Zstandard, a plugin
    space = h5py.h5s.create_simple((6, 4))
    values = h5py.h5d.create(f.id, name.encode(), h5py.h5t.NATIVE_FLOAT, space, properties)
    values.write(h5py.h5s.ALL, h5py.h5s.ALL, FEATURES)


def never_written(f: h5py.File, name: str, secret: Path) -> None:
    f.create_dataset(name, (100, 8), "float32")


def chunks_never_written(f: h5py.File, name: str, secret: Path) -> None:
    values = f.create_dataset(name, (100, 8), "float32", chunks=(10, 8))
    values[:50] = 1


def inflated(rows: int) -> Callable[[h5py.File, str, Path], None]:
    def write(f: h5py.File, name: str, secret: Path) -> None:
        values = f.create_dataset(name, (rows, 1024), "float32", chunks=(rows, 1024), compression="gzip")
        bomb = zlib.compressobj()
        data = b"".join([*(bomb.compress(bytes(2**20)) for _ in range(100)), bomb.flush()])
        values.id.write_direct_chunk((0, 0), data)

    return write


HOSTILE = {
    "external storage": (external_storage, "lies in another file"),
    "external link": (external_link, "a link into another file"),
    "soft link to an external link": (soft_link_out, "a link into another file"),
    "path through an external link": (group_link_out, "a link into another file"),
    "virtual": (virtual, "a virtual dataset"),
    "object references": (references, "not numbers"),
    "strings of any length": (text_of_any_length, "not numbers"),
    "circle": (circle, "in a circle"),
    "plugin": (plugin_filter, "needs the filter 32015, a plugin"),
    "29 TiB": (lambda f, name, _: claim_32_tib(f, name), r"claims 32\.0 TiB"),
    "never written": (never_written, "never written"),
    "chunks never written": (chunks_never_written, "5 of 10 chunks of .* were never written"),
    "a chunk that inflates": (inflated(256), "inflates to more than it claims"),
    "a chunk larger than it can be": (inflated(1), "larger than it can be"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_datasets_are_refused_wherever_they_stand(tmp_path: Path, secret: Path, kind: str) -> None:
    write, words = HOSTILE[kind]
    for name in ("features", "coords"):
        path = tmp_path / f"{name}.h5"
        with h5py.File(path, "w") as f:
            if name == "coords":
                f["features"] = FEATURES
            write(f, name, secret)
        with pytest.raises(BenchmarkError, match=rf"{name}\.h5: .*{words}"):
            read_features(path)
        with pytest.raises(BenchmarkError, match=rf"{name}\.h5: no coordinates"):
            read_coords(path)


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_plans_and_caches_are_refused(tmp_path: Path, secret: Path, kind: str) -> None:
    write, _ = HOSTILE[kind]
    cache = tmp_path / "cache.h5"
    write_arrays(cache, {"features": FEATURES}, {})
    with h5py.File(cache, "r+") as f:
        del f["features"]
        write(f, "features", secret)
    with pytest.raises(BenchmarkError, match=r"cache\.h5: not a readable file of arrays"):
        read_arrays(cache)
    plan = tmp_path / "plan.h5"
    with h5py.File(plan, "w") as f:
        f.attrs["plan"] = '{"format": "g2l-plan", "version": 1}'
        write(f, "audit", secret)
    with pytest.raises(PlanError, match=r"plan\.h5: not a readable plan"):
        read_plan(plan)


def test_a_plan_that_may_not_be_read_is_told_so_in_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "plan.h5").touch()
    monkeypatch.setattr(outside, "open", failing(os_error(errno.EACCES)), raising=False)
    with pytest.raises(PlanError, match=r"plan\.h5: not a readable plan \(Permission denied\)"):
        read_plan(tmp_path / "plan.h5")


def test_links_out_are_not_even_opened(tmp_path: Path) -> None:
    """Opening a pipe would wait for ever."""
    os.mkfifo(tmp_path / "pipe.h5")
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f["features"] = FEATURES
        f["other"] = h5py.ExternalLink(str(tmp_path / "pipe.h5"), "/")
    assert read_features(path).features.shape == (6, 4)
    assert set(read_attributes(path)) == {"", "features"}
    with pytest.raises(BenchmarkError, match=r"pipe\.h5: .*a pipe or device"):
        read_features(tmp_path / "pipe.h5")


def test_data_beyond_the_end_of_the_file_are_no_zeros(tmp_path: Path) -> None:
    """HDF5 fills what is not there with zeros, if the header says that it should be."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="earliest") as f:
        f["features"] = FEATURES
        offset = f["features"].id.get_offset()
    data = bytearray(path.read_bytes())
    place = data.index(offset.to_bytes(8, "little") + FEATURES.nbytes.to_bytes(8, "little"))
    data[place : place + 8] = (len(data) - 16).to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(BenchmarkError, match=r"a\.h5: not a readable feature file"):
        read_features(path)


def test_an_attribute_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w", libver="latest") as f:
        f["features"] = FEATURES
        f["features"].attrs["x"] = np.zeros(2**24 + 1, np.float32)
    for read in (read_features, read_attributes):
        with pytest.raises(BenchmarkError, match="its attribute x claims more than 64 MiB"):
            read(path)


def many_strings_at_one_place(path: Path, num_bytes: int, number: int) -> None:
    """A file whose attribute `note` has `number` strings, all of them one object of the heap."""
    with h5py.File(path, "w", libver="earliest") as f:
        f["features"] = FEATURES
        note = ["A" * num_bytes, *(f"b{i:05d}" for i in range(1, number))]
        f["features"].attrs.create("note", np.array(note, dtype=object), dtype=h5py.string_dtype())
    data = bytearray(path.read_bytes())
    second = data.index(struct.pack("<I", 6), data.index(struct.pack("<I", num_bytes)))
    while struct.unpack_from("<I", data, second - 16)[0] != num_bytes:
        second = data.index(struct.pack("<I", 6), second + 1)
    for i in range(number - 1):
        data[second + 16 * i : second + 16 * (i + 1)] = data[second - 16 : second]
    path.write_bytes(data)


def test_of_a_file_with_many_attributes_the_one_that_is_asked_for_is_read_by_reader_and_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a plan of 1,000 slides all 24,000 were read twice, which took 12 s."""
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f.attrs["of file"] = 1
        for name in "ab":
            group = f.create_group(f"slides/{name}")
            group["coords"] = np.zeros(3)
            group.attrs.update({"slide": f"record {name}", "other": 2})
            group["coords"].attrs["other"] = 3
    names: list[str] = []
    get_id = h5py.AttributeManager.get_id

    def counted(self: h5py.AttributeManager, name: str) -> object:
        names.append(name)
        return get_id(self, name)

    monkeypatch.setattr(h5py.AttributeManager, "get_id", counted)
    assert look_at(path, "slide") == ""
    assert sorted(set(names)) == ["of file", "slide"]
    with open_hdf5(path, only="slide") as f:
        assert attribute(f["slides/b"], "slide") == attributes(f["slides/b"])["slide"] == "record b"
        with pytest.raises(KeyError):
            attribute(f["slides/b"], "none")
    look_at(path)
    assert names.count("other") == 1 + 4


def test_many_strings_that_are_one_object_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    many_strings_at_one_place(path, 10_000, 300)
    with h5py.File(path) as f:
        assert len(f["features"].attrs["note"][299]) == 10_000  # as HDF5 takes it
    with pytest.raises(BenchmarkError, match="its attribute note has 300 values of any length; at most 64 are read"):
        read_attributes(path)


def nested(f: h5py.File) -> None:
    inner = h5py.h5t.vlen_create(h5py.h5t.vlen_create(h5py.h5t.NATIVE_INT8))
    h5py.h5a.create(f.id, b"x", inner, h5py.h5s.create(h5py.h5s.SCALAR))


def within_an_array_type(f: h5py.File) -> None:
    text = h5py.h5t.C_S1.copy()
    text.set_size(h5py.h5t.VARIABLE)
    h5py.h5a.create(f.id, b"x", h5py.h5t.array_create(text, (65,)), h5py.h5s.create(h5py.h5s.SCALAR))


def within_a_compound(f: h5py.File) -> None:
    kind = np.dtype([("a", h5py.string_dtype()), ("b", h5py.string_dtype())])
    f.attrs.create("x", np.array([("", "")] * 33, dtype=kind), dtype=kind)


@pytest.mark.parametrize("write", [nested, within_an_array_type, within_a_compound])
def test_values_of_any_length_are_counted_in_every_type(tmp_path: Path, write: Callable[[h5py.File], None]) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        write(f)
    with pytest.raises(BenchmarkError, match=r"its attribute x has .*of any length"):
        read_attributes(path)


def test_texts_are_bounded_by_the_memory_and_by_their_sum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as f:
        f.attrs["list"] = ["a", "b", "c"]
        f.attrs["text"], f.attrs["other"] = "A" * 3000, "B" * 3000
        f.attrs.create("refs", [f.ref, f.ref], dtype=h5py.ref_dtype)
    read = read_attributes(path)[""]
    assert (list(read["list"]), len(read["text"])) == (["a", "b", "c"], 3000)
    monkeypatch.setattr("pipeline.disk.hdf5_input.MOST_ATTRIBUTE_BYTES", 5000)
    with pytest.raises(BenchmarkError, match="its attributes hold more than"):
        read_attributes(path)
    monkeypatch.setattr("pipeline.base.outside.SMALL_BYTES", 1)
    monkeypatch.setattr("pipeline.base.outside.free_memory_bytes", lambda: 4 * path.stat().st_size)
    with pytest.raises(BenchmarkError, match=r"its attribute list needs .* of memory"):
        read_attributes(path)


@pytest.mark.slow
def test_every_way_in_which_features_are_stored_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    noise = np.random.default_rng(0).integers(0, 2**11, (512, 600), np.uint16).astype(np.float32)
    ways = (
        {},
        {"chunks": (1, 600), "maxshape": (None, 600)},
        {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (512, 600)},
        {"compression": "lzf"},
        {"chunks": (500, 500)},
    )
    for values in (noise, np.ones_like(noise), noise.astype(np.float16), noise.astype(">f4")):
        for way in ways:
            with h5py.File(path, "w") as f:
                f.create_dataset("data", data=values, **way)
                f["features"] = h5py.SoftLink("/data")  # within the file
            np.testing.assert_array_equal(read_features(path).features, values)


def as_bfloat16(f: h5py.File, name: str, values: NDArray[np.float32], chunks: tuple[int, int] | None) -> None:
    """Write numbers in HDF5's own type of 16 bits, eight of which are the exponent; in chunks they are deflated."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_fields(15, 7, 8, 0, 7)
    kind.set_size(2)
    kind.set_ebias(127)
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    if chunks:
        properties.set_chunk(chunks)
        properties.set_deflate(4)
    stored = h5py.h5d.create(f.id, name.encode(), kind, h5py.h5s.create_simple(values.shape), properties)
    stored.write(h5py.h5s.ALL, h5py.h5s.ALL, values, mtype=h5py.h5t.IEEE_F32LE)


@pytest.mark.parametrize("chunks", [None, (4, 3)])
def test_numbers_that_are_smaller_in_the_file_than_in_memory_are_read(
    tmp_path: Path, chunks: tuple[int, int] | None
) -> None:
    """bfloat16, which numpy has not: h5py gives float32. They seemed never to have been written, or to inflate."""
    values = (np.arange(24, dtype=np.float32).reshape(6, 4) - 9) / 4
    with h5py.File(tmp_path / "a.h5", "w") as f:
        as_bfloat16(f, "features", values, chunks)
    found = read_features(tmp_path / "a.h5").features
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)
    with h5py.File(tmp_path / "a.h5", "r+") as f:  # and what is missing is missed
        offset = f["features"].id.get_offset() if chunks is None else f["features"].id.get_chunk_info(3).byte_offset
    os.truncate(tmp_path / "a.h5", offset + 8)
    with pytest.raises(BenchmarkError):
        read_features(tmp_path / "a.h5")
