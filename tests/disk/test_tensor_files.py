"""PyTorch and NumPy files that claim more than they hold, and those of every form that are sound."""

import argparse
import collections
import datetime
import gc
import io
import os
import pickle
import struct
import sys
import types
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.base.errors import BenchmarkError
from pipeline.disk.tensor_files import PassedOver, load_tensors, read_npz
from pipeline.features.read import read_features

FEATURES = torch.from_numpy(np.random.default_rng(0).standard_normal((6, 4), dtype=np.float32))


def rewritten(path: Path, change: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A zip archive with some entries replaced, by the end of their names."""
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries.items():
            new = next((value for end, value in change.items() if name.endswith(end)), data)
            archive.writestr(name, new)


def refused(path: Path, words: str) -> None:
    with pytest.raises(BenchmarkError, match=rf"{path.name}: not a readable feature file \(.*{words}"):
        read_features(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize(
    "content",
    [
        FEATURES,
        FEATURES.bfloat16(),
        FEATURES[::2],
        FEATURES.t(),
        torch.ones(3, 2, dtype=torch.int8),
        {"a": [FEATURES], "b": 3, "c": torch.nn.Parameter(FEATURES)},
    ],
)
def test_sound_files_load_as_torch_loads_them(tmp_path: Path, content: Any, legacy: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    found = load_tensors(path)
    if isinstance(content, torch.Tensor):
        assert torch.equal(found, content)
        assert found.dtype == content.dtype
    else:
        assert torch.equal(found["a"][0], FEATURES)


SETTINGS: list[Any] = [
    argparse.Namespace(model="vit", lr=1e-3, out=Path("/run"), inner=argparse.Namespace(a=[1])),
    types.SimpleNamespace(a=1),
    {"best": np.float64(0.5), "epoch": np.int64(3), "on": np.bool_(True), "type": np.dtype("float32")},
    ["MT19937", np.arange(624, dtype=np.uint32), 3],
    Path("/run/a"),
    PureWindowsPath("C:/run"),
    [datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), datetime.timedelta(1)],
    collections.Counter("abc"),
]
"""What training writes beside its tensors."""


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda value: type(value).__name__)
def test_settings_beside_the_tensors_are_passed_over(tmp_path: Path, settings: Any, legacy: bool) -> None:
    """They do not change the tensors, and nothing of them is registered with torch afterwards."""
    path, before = tmp_path / "a.pt", set(torch.serialization.get_safe_globals())
    torch.save({"args": settings, "model": {"w": FEATURES}}, path, _use_new_zipfile_serialization=not legacy)
    assert torch.equal(load_tensors(path)["model"]["w"], FEATURES)
    assert set(torch.serialization.get_safe_globals()) == before


def test_settings_of_omegaconf_are_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Hydra's training writes them: containers that hold nodes, metadata and `typing.Any`. It need not be there."""
    made: dict[str, Any] = {}
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    for home, name in (
        ("omegaconf.dictconfig", "DictConfig"),
        ("omegaconf.listconfig", "ListConfig"),
        ("omegaconf.nodes", "AnyNode"),
        ("omegaconf.base", "Metadata"),
    ):
        module = types.ModuleType(home)
        made[name] = type(name, (), {"__module__": home})
        setattr(module, name, made[name])
        monkeypatch.setitem(sys.modules, home, module)
    node, items, config = made["AnyNode"](), made["ListConfig"](), made["DictConfig"]()
    node.__dict__ = {"_metadata": made["Metadata"](), "_val": 3, "type": Any}
    items.__dict__ = {"_content": [node], "_parent": config}
    config.__dict__ = {"_content": {"a": node, "b": items}}
    torch.save({"hyper_parameters": {"cfg": config}, "model": {"w": FEATURES}}, tmp_path / "a.ckpt")
    assert torch.equal(load_tensors(tmp_path / "a.ckpt")["model"]["w"], FEATURES)


@pytest.mark.parametrize("factory", [None, dict, list, int])
def test_a_dictionary_with_a_default_is_a_plain_one(tmp_path: Path, factory: Any) -> None:
    made = collections.defaultdict(factory, {"w": FEATURES, "n": 3})
    torch.save({"model": made}, tmp_path / "a.pt")
    found = load_tensors(tmp_path / "a.pt")["model"]
    assert torch.equal(found["w"], FEATURES)
    assert found["n"] == 3
    with pytest.raises(KeyError):
        found["absent"]


class Derived(argparse.Namespace):
    """A class of settings whose state is code."""

    def __setstate__(self, state: Any) -> None:
        raise AssertionError("it ran")


class Registered(argparse.Namespace):
    """A class that the user lets torch load."""


class Calling:
    """Pickled as a call."""

    def __init__(self, function: Any, *values: Any) -> None:
        self.call = function, values

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (lambda mark: Calling(os.system, f"touch {mark}"), r"posix.system|nt.system"),
        (lambda mark: argparse.Namespace(a=Calling(os.mkdir, str(mark))), r"posix.mkdir|nt.mkdir"),
        (lambda _: Derived(a=1), "Derived"),
        (lambda mark: Calling(Path.touch, mark), r"pathlib.Path|getattr"),
        (lambda mark: Calling(Path, Calling(os.mkdir, str(mark))), r"mkdir"),
        (lambda mark: Calling(map, os.mkdir, [str(mark)]), r"mkdir"),
        (lambda mark: Calling(eval, f"__import__('os').mkdir({str(mark)!r})"), r"eval"),
        (lambda _: torch.nn.Linear(1, 1), r"torch.nn.modules.linear.Linear"),
        (lambda _: collections.deque([1]), r"collections.deque"),
        (lambda _: Calling(bytearray, 1 << 28), r"builtins.bytearray"),
    ],
)
def test_code_among_the_settings_is_refused_and_not_run(tmp_path: Path, hostile: Any, named: str) -> None:
    path, before = tmp_path / "a.pt", set(torch.serialization.get_safe_globals())
    for other in (1, Path("/also/settings"), collections.defaultdict(dict)):
        for legacy in (False, True):
            content = {"w": FEATURES, "args": hostile(tmp_path / "ran"), "other": other}
            torch.save(content, path, _use_new_zipfile_serialization=not legacy)
            with pytest.raises(pickle.UnpicklingError, match=named):
                load_tensors(path)
    assert not (tmp_path / "ran").exists()
    assert set(torch.serialization.get_safe_globals()) == before


def test_stand_ins_take_no_state_of_a_class(tmp_path: Path) -> None:
    """A pickle that sets attributes of the class itself, not of an object, must not change what stands in for it."""
    path = tmp_path / "a.pt"
    torch.save({"a": argparse.Namespace(x=1)}, path)
    with zipfile.ZipFile(path) as archive:
        data = next(archive.read(name) for name in archive.namelist() if name.endswith("data.pkl"))
    assert b"cargparse\nNamespace\n" in data
    rewritten(path, {"data.pkl": b"\x80\x02cargparse\nNamespace\nN}X\x01\x00\x00\x00xK\x01s\x86b."})
    with pytest.raises(Exception, match=r"setstate|Can only build"):
        load_tensors(path)
    assert not hasattr(PassedOver, "x")
    assert not hasattr(argparse.Namespace, "x")


def test_threads_load_settings_at_once_and_leave_what_the_user_registered(tmp_path: Path) -> None:
    paths = [tmp_path / f"{k}.pt" for k in range(4)]
    for k, path in enumerate(paths):
        torch.save({"w": FEATURES + k, "args": SETTINGS[k]}, path)
    with torch.serialization.safe_globals([Registered]):
        before = set(torch.serialization.get_safe_globals())
        torch.save(Registered(a=1), tmp_path / "own.pt")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda k: load_tensors(paths[k % 4])["w"], range(64)))
        assert all(torch.equal(value, FEATURES + k % 4) for k, value in enumerate(found))
        assert set(torch.serialization.get_safe_globals()) == before
        assert load_tensors(tmp_path / "own.pt").a == 1
    with pytest.raises(pickle.UnpicklingError, match="Registered"):
        load_tensors(tmp_path / "own.pt")


def test_a_storage_that_claims_more_than_the_archive_holds(tmp_path: Path) -> None:
    """torch takes the pickle's word for a storage's size, and reads what lies behind it in memory."""
    path = tmp_path / "a.pt"
    torch.save(FEATURES, path)
    rewritten(path, {"data/0": bytes(8)})
    refused(path, "storage 0 claims 96 bytes and has 8")


def test_a_storage_that_claims_more_than_an_old_file_holds(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(FEATURES, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    at = data.rindex(struct.pack("<q", 24))
    count = data.index(b"K\x18")  # 24 elements, in the pickle
    large = b"\x8a\x06" + (2**40).to_bytes(6, "little")
    path.write_bytes(data[:count] + large + data[count + 2 : at] + struct.pack("<q", 2**40) + data[at + 8 :])
    refused(path, "its storages claim")


def test_a_view_that_claims_more_than_its_storage(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(torch.ones(1, 1).expand(2**30, 2**13), path)
    refused(path, "claims the shape")


def test_archives_that_inflate_beyond_what_deflate_can(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save(FEATURES, path)
    with zipfile.ZipFile(path) as archive:
        entry = next(e for e in archive.infolist() if e.filename.endswith("data/0"))
    data = path.read_bytes()
    sizes = struct.pack("<II", entry.compress_size, entry.file_size)
    at = data.rindex(sizes)  # in the central directory
    path.write_bytes(data[: at + 4] + struct.pack("<I", 2**31) + data[at + 8 :])
    refused(path, "claims 2,147,483,648 bytes and has 96")


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_archives_in_which_an_entry_stands_twice(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("archive/data.pkl", b"")
    refused(path, "two entries")


def npy(shape: tuple[int, ...], dtype: str, data: bytes) -> bytes:
    """An array's file with a header of any claim."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue() + data


def test_arrays_that_claim_more_than_they_hold(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", npy((2**40, 8), "<f4", bytes(64)))
    refused(path, "features claims the shape")


def test_arrays_of_objects_are_not_unpickled(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("features.npy", npy((1,), "|O", pickle.dumps([print])))
    refused(path, "holds objects")


def test_sound_archives_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, features=FEATURES.numpy(), other=np.zeros(3))
        arrays, names = read_npz(path, ("features", "absent"))
        np.testing.assert_array_equal(arrays["features"], FEATURES.numpy())
        assert (list(arrays), sorted(names)) == (["features"], ["features", "other"])


@pytest.mark.parametrize(
    "data", [b"\x80\x02X", b"\x80\x02cos\nsystem\n(S'true'\ntR.", b"PK\x03\x04", b"\x80\x02]q\x01", b"\x80\x02r"]
)
def test_what_is_hardly_a_pickle_is_an_error_of_its_file(tmp_path: Path, data: bytes) -> None:
    """Among them what made struct.error and IndexError of torch's unpickler."""
    path = tmp_path / "a.pt"
    path.write_bytes(data)
    refused(path, "")


def test_threads_read_archives_at_once(tmp_path: Path) -> None:
    """Python 3.11 may fail where two threads parse a header at once. It was seen once, on a busy machine;
    here threads change places as often as they can.
    """
    path = tmp_path / "a.npz"
    np.savez(path, x=np.zeros((3, 4)), y=np.zeros(5))
    interval, thresholds = sys.getswitchinterval(), gc.get_threshold()
    try:
        sys.setswitchinterval(1e-6)
        gc.set_threshold(1)
        with ThreadPoolExecutor(8) as pool:
            read = list(pool.map(lambda _: read_npz(path, ("x", "y"))[1], range(300)))
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
    assert read == [["x", "y"]] * 300
