"""What every benchmark of `g2l evaluate` must do: the same tests for each room on the list of benchmarks."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from support.benchmarks import config
from support.files import write_table
from support.stores import PATCH_PX, make_patches, make_store

from pipeline.base.errors import G2LError
from pipeline.encoders.build import build_encoder
from pipeline.evaluate.benchmark import Benchmark, EvaluatedModel, Evaluation, load_benchmark
from pipeline.evaluate.options.benchmarks import BENCHMARKS, options_of
from pipeline.report.content import Section, Table
from pipeline.student.resolve import NamedModel

pytestmark = pytest.mark.usefixtures("short_measurements")

WIDTH = 6
SMALL = {"cost": False, "folds": 2, "resamples": 100, "draws": 2, "knn": 3, "mil_epochs": 1}
EMBED_NOTHING = ("slides", "cost")
"""Benchmarks that need no embeddings of patches."""


def is_wanted(room: str, options: dict[str, Any]) -> bool:
    return load_benchmark(room).is_wanted(config(**(SMALL | options)).part(options_of(room)))


def look(room: str, options: dict[str, Any]) -> Benchmark[Any]:
    return load_benchmark(room).look(config(**(SMALL | options)).part(options_of(room)), workers=1)


def write_images(folder: Path, count: int) -> None:
    for i, patch in enumerate(make_patches(count, PATCH_PX, seed=2)):
        Image.fromarray(patch).save(folder / f"{i}.png")


def fidelity_options(folder: Path) -> dict[str, Any]:
    make_store(folder / "s.zarr", train=(12,), val=(6,) * 5)
    return {"store": folder / "s.zarr"}


def patch_options(folder: Path) -> dict[str, Any]:
    write_images(folder, 24)
    rows = [f"{i}.png,{'xy'[i % 2]},C{i // 3}" for i in range(24)]
    return {"patches": write_table(folder / "patches.csv", "path,label,case_id", rows)}


def slide_options(folder: Path) -> dict[str, Any]:
    (folder / "a").mkdir()
    for i in range(12):
        with h5py.File(folder / "a" / f"s{i}.h5", "w") as f:
            f["features"] = np.random.default_rng(i).normal(size=(4, WIDTH)).astype(np.float32) + i % 2
    rows = [f"s{i},P{i},{'xy'[i % 2]}" for i in range(12)]
    return {
        "slides": write_table(folder / "slides.csv", "slide_id,case_id,label", rows),
        "features": [f"a={folder / 'a'}"],
    }


def robustness_options(folder: Path) -> dict[str, Any]:
    write_images(folder, 24)
    rows = [f"{i}.png,S{i // 2},{i},{'xy'[i % 2]},{'mn'[i // 2 % 2]}" for i in range(24)]
    columns = "path,slide_id,patch_id,biological_class,medical_center"
    return {"robustness": write_table(folder / "robustness.csv", columns, rows), "margins": False}


def cost_options(_: Path) -> dict[str, Any]:
    return {"cost": True, "cost_batch_sizes": [1], "cost_rounds": 1}


@dataclass(frozen=True)
class Case:
    """How one benchmark is asked for: options that it can use, and options that name what is not there."""

    options: Callable[[Path], dict[str, Any]]
    broken: dict[str, Any]
    named: str


CASES = {
    "fidelity": Case(fidelity_options, {"store": Path("/nowhere.zarr")}, "nowhere.zarr"),
    "patches": Case(patch_options, {"patches": Path("/nowhere.csv")}, "nowhere.csv"),
    "slides": Case(slide_options, {"features": ["a=/nowhere"]}, "/nowhere is not a folder"),
    "robustness": Case(robustness_options, {"robustness": Path("/nowhere.csv")}, "nowhere.csv"),
    "cost": Case(cost_options, {"cost_batch_sizes": [0]}, "--cost-batch-sizes"),
}


@pytest.fixture(scope="module")
def models() -> list[EvaluatedModel]:
    found = []
    for label, name in (("a", "test_resnet"), ("b", "test_efficientnet")):
        named = NamedModel(label, name, "scratch", PATCH_PX)
        found.append(EvaluatedModel(named, build_encoder(name, "scratch", PATCH_PX), ""))
    return found


@pytest.fixture(params=BENCHMARKS, ids=lambda room: room.rpartition(".")[2])
def room(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def kind(room: str) -> type[Benchmark[Any]]:
    return load_benchmark(room)


@pytest.fixture
def options(kind: type[Benchmark[Any]], tmp_path: Path) -> dict[str, Any]:
    return CASES[kind.key].options(tmp_path)


def section_of(benchmark: Benchmark[Any], models: list[EvaluatedModel], out: Path) -> Section:
    """The section for random embeddings, the same at each call."""
    source = benchmark.patch_source()
    embeddings = {}
    if source is not None:
        rng = np.random.default_rng(0)
        embeddings = {m.label: rng.normal(size=(len(source.rows), WIDTH)).astype(np.float32) for m in models}
    return benchmark.section(Evaluation(models, embeddings, "a", out, torch.device("cpu"), "float32"))


def without_times(value: Any) -> Any:
    """A record with every measured number replaced by its type."""
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items()}
    if isinstance(value, list):
        return [without_times(each) for each in value]
    return type(value).__name__ if isinstance(value, float | None) else value


def test_every_benchmark_is_tested() -> None:
    assert list(CASES) == [load_benchmark(room).key for room in BENCHMARKS]


def test_it_is_wanted_by_its_own_options_only(room: str, kind: type[Benchmark[Any]], options: dict[str, Any]) -> None:
    assert [each for each in BENCHMARKS if is_wanted(each, options)] == [room]
    assert not is_wanted(room, {})
    assert kind.asked_by.startswith("--")


def test_its_options_are_those_of_its_room(room: str, options: dict[str, Any]) -> None:
    assert type(look(room, options).options) is options_of(room)


def test_looking_refuses_what_is_not_there_by_name(
    room: str, kind: type[Benchmark[Any]], options: dict[str, Any]
) -> None:
    with pytest.raises(G2LError, match=CASES[kind.key].named):
        look(room, options | CASES[kind.key].broken)


def test_looking_at_sound_inputs_says_nothing_and_prints_nothing(
    room: str, options: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    assert look(room, options).notes == ()
    assert "warning" not in capfd.readouterr().err


def test_patches_are_read_and_known_by_what_they_are(
    room: str, kind: type[Benchmark[Any]], options: dict[str, Any]
) -> None:
    source, again = (look(room, options).patch_source() for _ in range(2))
    if source is None or again is None:
        assert kind.key in EMBED_NOTHING
        return
    assert source.data_key(PATCH_PX) == again.data_key(PATCH_PX) != source.data_key(PATCH_PX + 1)
    json.dumps(source.data_key(PATCH_PX))
    first, second = (np.zeros((PATCH_PX, PATCH_PX, 3), np.uint8) for _ in range(2))
    source.read(source.rows[0], first)
    source.read(source.rows[-1], second)
    assert first.any()
    assert (first != second).any()


def has_meaning(section: Section, table: Table) -> bool:
    """Whether every column of numbers says what it is: itself, in an earlier table, or in the table's note."""
    said = {column.name for each in section.tables for column in each.columns if column.what}
    numbers = [
        column.name
        for i, column in enumerate(table.columns)
        if any(not isinstance(row[i], str | None) for row in table.rows)
    ]
    return bool(table.note) or all(name in said or name in section.basis for name in numbers)


def test_its_section_says_what_each_number_is(
    room: str, kind: type[Benchmark[Any]], options: dict[str, Any], models: list[EvaluatedModel], tmp_path: Path
) -> None:
    section = section_of(look(room, options), models, tmp_path)
    assert section.key == kind.key
    assert section.title
    assert section.what
    assert section.basis
    assert section.scores
    for score in section.scores:
        assert score.name
        assert score.values.keys() <= {"a", "b"}
        assert all(np.isfinite(value.value) for value in score.values.values())
        assert score.is_cost == (kind.key == "cost")
    assert [table.title for table in section.tables if not has_meaning(section, table)] == []
    assert all((tmp_path / figure.file).is_file() for figure in section.figures)
    json.dumps(section.record(), allow_nan=False)


@pytest.mark.slow
def test_the_same_embeddings_give_the_same_section(
    room: str, kind: type[Benchmark[Any]], options: dict[str, Any], models: list[EvaluatedModel], tmp_path: Path
) -> None:
    records = [section_of(look(room, options), models, tmp_path).record() for _ in range(2)]
    if kind.key == "cost":
        records = [without_times(record) for record in records]
    assert records[0] == records[1]
