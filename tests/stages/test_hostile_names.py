"""Names from files of others in what people see: terminal, card, figures, stored names."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.stores import make_store

from pipeline.base.console import say, table
from pipeline.base.errors import StoreError
from pipeline.base.images import decode_image, encode_image
from pipeline.cohort.manifest.read import id_trouble
from pipeline.store.shards import ShardWriter
from pipeline.store.store import Store
from pipeline.student.card import in_markdown
from stages.ending import show

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    'a" onload="x',
    "a'b",
    "a\nb",
    "a\r\n\r\nb",
    "\x1b[2J\x1b[31mred",
    "\x1b]8;;http://x\x07link",
    "../../etc/passwd",
    "$\\frac{1}{0}$",
    "$x",
    "```\n# title",
    "|a|b|",
    "[link](javascript:alert(1))",
    "\N{RIGHT-TO-LEFT OVERRIDE}gpj.exe",
    "x" * 5000,
    "{{ 7 * 7 }}",
    "\udcff\udcfe",
    "=1+1",
)


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_reaches_the_terminal_as_a_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"warning: {name}")
    show(f"slide {name}")
    print(table([[name, 1]], ("slide", "rows")))
    out, err = capsys.readouterr()
    for text in (out, err):
        assert not any(ord(c) < 32 and c not in "\n\t" for c in text)
        assert not set(text) & set("\x7f\x9b\N{RIGHT-TO-LEFT OVERRIDE}")
        text.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_markup_in_a_card(name: str) -> None:
    shown = in_markdown({"teacher": [{"name": name, "rows": 3, "mean": (0.5, 0.5)}]})["teacher"][0]
    assert not set(shown["name"]) & set("<>|`*[]\n\r\x1b")
    assert (shown["rows"], shown["mean"]) == (3, (0.5, 0.5))


def test_plain_names_stay_as_they_are_in_a_card() -> None:
    for name in ("vit_large_patch14_reg4_dinov2.lvd142m", "hf-hub:bioptimus/H-optimus-0", "CC-BY-NC-ND 4.0", "Müller"):
        assert in_markdown(name) == name


@pytest.mark.parametrize(
    "name",
    ["../x", "a/b", "..", ".", ".hidden", "a\\b", "a\0b", "a\nb", "\x1b[2J", " a", "x" * 201, "", "\u202ea", "\udcff"],
)
def test_ids_that_could_name_another_file_are_refused(name: str) -> None:
    assert id_trouble(name)


# --- stores of others ---


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stores") / "store.zarr"
    make_store(folder, train=(4,), val=(4,), rows_per_shard=4)
    return folder


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "store.zarr"))


def edit(path: Path, change: Any) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd", "/etc/passwd", "embedding/c/0/../../../zarr.json", "plan/zarr.json"]
)
def test_a_ledger_names_files_of_its_shard_only(store: Path, name: str) -> None:
    edit(store / "shards" / "0.json", lambda entry: entry["files"].update({name: {"bytes": 1, "sha256": "0"}}))
    assert f"{name!r} is no file of this shard" in Store(store).first.check_files(0)


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a.update(rows=2**62),
        lambda a: a.update(rows=-1),
        lambda a: a.update(rows="7"),
        lambda a: a.update(rows=True),
        lambda a: a.update(patch_px=2**30),
        lambda a: a["teacher"].update(width=2**40),
        lambda a: a["settings"].update(rows_per_shard=0),
        lambda a: a["settings"].update(dtype="object"),
        lambda a: a["settings"].update(pixels="../x"),
        lambda a: a.update(settings=[]),
        lambda a: a.update(teacher=None),
    ],
)
def test_what_a_store_says_of_itself_is_bounded(store: Path, change: Any) -> None:
    edit(store / "zarr.json", lambda record: change(record["attributes"]["g2l"]))
    with pytest.raises(StoreError, match=r"metadata are damaged"):
        Store(store)


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(shape=[2**50, 2]),
        lambda m: m.update(codecs=[*m["codecs"], {"name": "gzip", "configuration": {"level": 5}}]),
        lambda m: m.update(data_type="float64"),
        lambda m: m["chunk_grid"]["configuration"].update(chunk_shape=[1, 2]),
        lambda m: m.pop("codecs"),
    ],
)
def test_the_plan_of_a_store_is_raw_numbers_of_the_size_of_its_file(store: Path, change: Any) -> None:
    edit(store / "plan" / "coords" / "zarr.json", change)
    with pytest.raises(StoreError, match="the store's plan is damaged"):
        _ = Store(store).plan


def test_a_plan_of_one_split_only_has_no_file_of_splits(tmp_path: Path) -> None:
    """zarr writes no chunk that is all fill value."""
    made = make_store(tmp_path / "one.zarr", train=(4,), val=(), rows_per_shard=4)
    assert not (made.folder / "plan" / "split" / "c" / "0").exists()
    assert Store(made.folder).plan.split().tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e.update(status={"OK": "7"}),
        lambda e: e.update(status=[]),
        lambda e: e.update(status={"GOOD": 1}),
        lambda e: e.update(files=[]),
        lambda e: e.update(files={"a": 1}),
        lambda e: e.update(failures=[1]),
    ],
)
def test_a_ledger_entry_of_other_types_is_damaged(store: Path, change: Any) -> None:
    edit(store / "shards" / "0.json", change)
    with pytest.raises(StoreError, match=r"0\.json: damaged ledger entry .* Delete it to redo the shard"):
        Store(store).first.ledger.read(0)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_metadata_nested_without_end_are_damaged(store: Path, text: str) -> None:
    (store / "shards" / "0.json").write_text(text)
    with pytest.raises(StoreError, match="nested too deeply"):
        Store(store).first.ledger.read(0)
    (store / "zarr.json").write_text(text)
    with pytest.raises(StoreError, match="not a store of G2L"):
        Store(store)


def test_shards_of_other_sizes_and_pipes_are_damaged(store: Path) -> None:
    for rows, words in ((7, "its rows are not whole"), (8, "damaged")):
        path = store / "embedding" / "c" / "0" / "0"
        path.unlink()
        with ShardWriter(path, Store(store).first.chunks_per_shard) as writer:
            writer.append(bytes(rows))
            writer.commit()
        with pytest.raises(StoreError, match=words):
            Store(store).first.read_embeddings(0)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(StoreError, match="too short"):
        Store(store).first.read_embeddings(0)


def test_pixels_of_another_size_are_refused_before_they_are_decoded() -> None:
    large = np.zeros((2048, 2048, 3), np.uint8)
    for kind in ("jpegxl", "jpeg"):
        with pytest.raises(ValueError, match=r"shape=\(2048, 2048, 3\)"):
            decode_image(encode_image(large, kind), kind, 16)  # type: ignore[arg-type]
