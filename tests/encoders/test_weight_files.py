"""The boundary before weight files: whatever is wrong, one named error, no code is run and nothing absurd is read."""

import argparse
import collections
import fractions
import functools
import io
import math
import os
import pickle
import random
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from support.damage import Evil
from support.extraction import tiny_model, write_teacher
from support.failing import failing
from support.limits import little_memory_left

from pipeline.base.errors import EncoderError, LimitError
from pipeline.encoders import weight_files
from pipeline.encoders.build import build_encoder
from pipeline.encoders.weight_files import read_weight_file

NAME = "test_efficientnet"


def test_safetensors_and_torch_files_are_read(tmp_path: Path) -> None:
    state = tiny_model(NAME).state_dict()
    torch.save(state, tmp_path / "zip.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for path in (write_teacher(tmp_path / "t.safetensors", NAME), tmp_path / "zip.pth", tmp_path / "old.pth"):
        content = read_weight_file(path)
        assert content.keys() == state.keys()
        assert all(torch.equal(content[name], state[name]) for name in state)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1), "evil": Evil(tmp_path / "ran")}, tmp_path / "evil.pth")
    (tmp_path / "evil.pkl").write_bytes(pickle.dumps(Evil(tmp_path / "ran")))
    torch.save(tiny_model(NAME), tmp_path / "module.pth")
    for name in ("evil.pth", "evil.pkl", "module.pth"):
        with pytest.raises(
            EncoderError, match=rf"{name}: not a PyTorch file of nothing but tensors, and so not loaded"
        ):
            read_weight_file(tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_checkpoints_of_training_are_read_with_their_settings_beside_the_tensors(tmp_path: Path) -> None:
    """As timm's train.py, DINO's main and Lightning write them."""
    state, args = tiny_model(NAME).state_dict(), argparse.Namespace(model=NAME, lr=1e-3, output=tmp_path)
    forms: list[tuple[str, dict[str, Any]]] = [
        ("state_dict", {"epoch": 3, "arch": NAME, "args": args, "metric": np.float64(0.5), "version": 2}),
        ("model", {"args": args, "scaler": collections.defaultdict(dict), "epoch": np.int64(7)}),
        ("state_dict", {"hyper_parameters": {"out": tmp_path}, "loops": collections.OrderedDict(a=1)}),
    ]
    for key, beside in forms:
        torch.save({key: state, **beside}, tmp_path / "c.pth")
        content = read_weight_file(tmp_path / "c.pth")
        assert all(torch.equal(content[key][name], state[name]) for name in state)
        built = build_encoder(NAME, str(tmp_path / "c.pth"), 64)
        assert torch.equal(next(iter(built.module.model.state_dict().values())), next(iter(state.values())))


@pytest.mark.slow
def test_what_cannot_be_read_is_named_with_the_line_that_saves_the_weights(tmp_path: Path) -> None:
    """The line is run: what it writes is read."""
    path, state = tmp_path / "it's.pth", tiny_model(NAME).state_dict()
    torch.save({"state_dict": state, "rate": fractions.Fraction(1, 3)}, path)
    with pytest.raises(EncoderError, match=r"it holds fractions.Fraction\).*Where you trust it.*python -c") as error:
        read_weight_file(path)
    line = re.search(r'python -c "(.*)" \(or', str(error.value))
    assert line
    subprocess.run([sys.executable, "-c", line[1]], cwd=tmp_path, check=True)
    assert read_weight_file(tmp_path / "weights.pth").keys() == state.keys()
    torch.save({f"x{k}": Calling(k) for k in range(5)}, path)
    with pytest.raises(EncoderError, match=r"math.floor, math.ceil, math.exp and 2 other classes"):
        read_weight_file(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("function", [os.getcwd, eval, subprocess.call, functools.reduce])
def test_nobody_is_shown_how_to_run_a_hostile_file(tmp_path: Path, function: Any, legacy: bool) -> None:
    class Hostile:
        def __reduce__(self) -> Any:
            return function, ()

    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"w": torch.ones(2)}, "x": Hostile()}, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(EncoderError, match="can run code: do not load it") as error:
        read_weight_file(path)
    assert "weights_only" not in str(error.value)


@pytest.mark.parametrize("content", [b"<!DOCTYPE html><title>404</title>", bytes(range(256)) * 2, pickle.dumps([1, 2])])
def test_what_is_no_file_of_weights_is_to_be_fetched_again(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(EncoderError, match=r"w\.pth: .*Fetch it again from its source") as error:
        read_weight_file(path)
    assert "weights_only" not in str(error.value)


class Calling:
    """Pickled as calls of several functions."""

    def __init__(self, k: int) -> None:
        self.function = (math.floor, math.ceil, math.exp, math.sin, math.cos)[k]

    def __reduce__(self) -> Any:
        return self.function, (1,)


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_unreadable_weights_are_named(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(EncoderError, match=rf"{name}: no such weights"):
        read_weight_file(path)
    (safetensors.torch.save_file if name.endswith("safetensors") else torch.save)(tiny_model(NAME).state_dict(), path)
    whole = path.read_bytes()
    for content in (b"", b"text\n" * 100, whole[: len(whole) // 2], whole[:-1000], whole[:9]):
        path.write_bytes(content)
        with pytest.raises(EncoderError, match=name):
            read_weight_file(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(EncoderError, match=rf"{name}: unreadable weights \(not a file\)"):
        read_weight_file(path)
    path.rmdir()
    os.mkfifo(path)  # to open it would wait for ever
    with pytest.raises(EncoderError, match=rf"{name}: unreadable weights \(not a file\)"):
        read_weight_file(path)


@pytest.mark.parametrize("content", [[torch.zeros(1)], torch.zeros(3), 5])
def test_what_is_no_dictionary_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(EncoderError, match=r"w.pth: not a state dict of tensors"):
        read_weight_file(tmp_path / "w.pth")


def records(path: Path) -> dict[str, bytes]:
    """The records of a file of `torch.save`."""
    with zipfile.ZipFile(path) as archive:
        return {record.filename: archive.read(record) for record in archive.infolist()}


def write_records(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """An archive of these records."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.pth"
    torch.save({"a": torch.zeros(1 << 20)}, path)
    write_records(path, records(path), zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(torch, "load", None)
    with pytest.raises(EncoderError, match=r"bomb.pth: .* is compressed, which torch.save never does"):
        read_weight_file(path)
    data = io.BytesIO()  # many entries of the directory, one record in the file
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("bomb/data/0", bytes(1 << 16))
        for i in range(1, 100):
            record = zipfile.ZipInfo(f"bomb/data/{i}")
            record.CRC, record.header_offset = archive.infolist()[0].CRC, 0
            record.file_size = record.compress_size = 1 << 16
            archive.filelist.append(record)
    path.write_bytes(data.getvalue())
    with pytest.raises(EncoderError, match=r"bomb.pth: (its records claim more bytes|unreadable weights|damaged)"):
        read_weight_file(path)


def test_sizes_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    torch.save({"a": torch.zeros(9), "b": torch.zeros(9)}, path)
    for limit, value, words in (
        ("LARGEST_FILE_BYTES", 50, "no weights above 50 are read"),
        ("LARGEST_PICKLE_BYTES", 9, r"data.pkl has .* bytes; no more than 9 are read"),
        ("MOST_RECORDS", 2, "records; no more than 2 are read"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(weight_files, limit, value)
            with pytest.raises(EncoderError, match=rf"w.pth: .*{words}"):
                read_weight_file(path)
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, path)  # four bytes that say that they are 4 TiB
    with pytest.raises(EncoderError, match=r"w.pth: a claims 1,099,511,627,776 values, more than the file holds"):
        read_weight_file(path)
    torch.save({"a": {"b": torch.zeros(9).to_sparse()}}, path)
    with pytest.raises(EncoderError, match=r"w.pth: (a.b is no plain|unreadable|not a PyTorch)"):
        read_weight_file(path)


def test_a_tensor_that_claims_more_than_its_record_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch takes a storage's size from the pickle; not every version of it compares that with the record."""
    path = tmp_path / "a.pth"
    torch.save({"a": torch.zeros(24)}, path)
    content = records(path)
    name = next(name for name in content if name.endswith("data/0"))
    write_records(path, content | {name: bytes(8)})
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was loaded"))
    with pytest.raises(EncoderError, match=r"a\.pth: unreadable weights \(storage 0 claims 96 bytes and has 8"):
        read_weight_file(path)


def test_a_flipped_bit_in_a_torch_file_is_seen(tmp_path: Path) -> None:
    """`torch.load` does not look at checksums: it gives another weight without a word."""
    path = tmp_path / "w.pth"
    torch.save({"a": torch.ones(1000)}, path)
    damaged = bytearray(path.read_bytes())
    at = damaged.index(b"\x00\x00\x80\x3f" * 20) + 40
    damaged[at] ^= 1
    path.write_bytes(damaged)
    assert not torch.equal(torch.load(path, weights_only=True)["a"], torch.ones(1000))
    with pytest.raises(EncoderError, match=r"w.pth: damaged: .*data/0 does not match its checksum"):
        read_weight_file(path)


def test_dictionaries_that_hold_each_other_end(tmp_path: Path) -> None:
    """Each doubles the one before: to walk all ways through them would never end."""
    part: dict[str, Any] = {"a": torch.zeros(1)}
    for _ in range(200):
        part = {"a": part, "b": part}
    torch.save(part, tmp_path / "w.pth")
    started = time.monotonic()
    with pytest.raises(EncoderError):
        build_encoder(NAME, tmp_path / "w.pth", 64)
    assert time.monotonic() - started < 10


def damage(rng: random.Random, whole: bytes, kind: str) -> bytes:
    """A file's bytes with one kind of damage."""
    data = bytearray(whole)
    if kind == "cut":
        return bytes(data[: rng.randrange(len(data))])
    if kind == "hole":
        start = rng.randrange(len(data))
        return bytes(data[:start] + data[start + rng.randrange(1, 4096) :])
    if kind == "zeros":
        start = rng.randrange(len(data))
        data[start : start + 512] = bytes(len(data[start : start + 512]))
        return bytes(data)
    # most of what is read first, and what says where things are, lies at the ends
    for _ in range(rng.randrange(1, 9)):
        at = rng.choice((rng.randrange(len(data)), rng.randrange(2048), len(data) - 1 - rng.randrange(2048)))
        data[at % len(data)] = rng.choice((0, 255, rng.randrange(256)))
    return bytes(data)


def fuzz(tmp_path: Path, num: int, seed: int) -> tuple[int, int]:
    """Build an encoder from damaged files; returns how many were refused, and how many taken.

    What is taken has the names, shapes and types of the encoder's weights and finite numbers: a flipped bit in
    safetensors, which have no checksums, and bytes of no meaning.
    """
    rng = random.Random(seed)
    state = tiny_model("test_vit", img_size=64).state_dict()
    buffers: list[tuple[str, bytes]] = []
    for name, zipped in (("zip.pth", True), ("old.pth", False)):
        with io.BytesIO() as f:
            torch.save({"state_dict": state, "epoch": 3}, f, _use_new_zipfile_serialization=zipped)
            buffers.append((name, f.getvalue()))
    buffers.append(("w.safetensors", safetensors.torch.save(state)))
    refused = taken = 0
    for i in range(num):
        name, whole = buffers[i % len(buffers)]
        kind = rng.choice(("cut", "hole", "zeros", "bytes", "bytes"))
        path = tmp_path / name
        path.write_bytes(damage(rng, whole, kind))
        started = time.monotonic()
        said = ""
        try:
            build_encoder("test_vit", path, 64)
        except EncoderError as error:
            said = str(error)
        assert not said or str(path) in said, f"seed {seed}, {i} ({kind}): {said}"
        refused, taken = refused + bool(said), taken + (not said)
        assert time.monotonic() - started < 30, f"seed {seed}, {i} ({kind})"
    return refused, taken


def test_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    refused, taken = fuzz(tmp_path, 24, seed=8)
    assert refused > taken


@pytest.mark.slow
def test_hundreds_of_damaged_files_are_refused_by_name(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(1 << 30)
    print("seed", seed)
    refused, taken = fuzz(tmp_path, 300, seed)
    assert refused > taken


def test_without_memory_no_weights_are_called_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_teacher(tmp_path / "a.safetensors")
    monkeypatch.setattr("safetensors.torch.load_file", failing(MemoryError()))
    with little_memory_left(), pytest.raises(LimitError, match=r"ulimit -v"):
        read_weight_file(path)
    with pytest.raises(EncoderError, match=r"a\.safetensors: unreadable weights"):
        read_weight_file(path)
