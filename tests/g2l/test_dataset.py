"""A store as a dataset: its rows are the store's, whoever reads them, and its order reads few shards at a time."""

import os
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.extraction import plan_cohort, write_cohort, write_teacher
from support.stores import copy_with_teacher, make_store
from torch.utils.data import DataLoader

from g2l import dataset
from g2l.dataset import SHARDS_MIXED, StoreDataset, open_store
from pipeline.base.errors import ConfigError, StoreError
from pipeline.config.stages import ExtractConfig
from pipeline.sampling import VAL
from pipeline.store.store import Store
from stages.extract_teacher import extract_teacher


def negative(pixels: torch.Tensor) -> torch.Tensor:
    """A transform that can be sent to a process that was spawned."""
    return 255 - pixels


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 80 rows in shards of 4, two of which have no embedding."""
    return make_store(
        tmp_path_factory.mktemp("data") / "store.zarr", train=(32, 32), val=(16,), rows_per_shard=4, failed=(3, 70)
    ).folder


@pytest.fixture(scope="module")
def data(folder: Path) -> StoreDataset:
    return open_store(folder)


def rows_of(batches: Iterable[dict[str, Any]]) -> list[int]:
    return [int(row) for batch in batches for row in batch["row"]]


def loader(data: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, batch_size=8, **options)


def test_a_row_is_the_stores(folder: Path, data: StoreDataset) -> None:
    store = Store(folder)
    plan = store.plan
    assert len(data) == 78
    assert {3, 70}.isdisjoint(data.rows.tolist())
    for index in (0, 3, 40, -1):
        sample = data[index]
        row = int(data.rows[index])
        assert sample["row"] == row
        assert sample["pixels"].dtype == torch.uint8
        assert np.array_equal(sample["pixels"].permute(1, 2, 0).numpy(), store.read_patch(row))
        assert sample["embedding"].dtype == torch.float32
        assert np.array_equal(sample["embedding"].numpy(), store.first.read_embedding(row))
        slide = plan.slides[plan.slide_of_row()[row]]
        assert (sample["slide"], sample["case"]) == (slide.slide_id, slide.case_id)
        assert sample["coords"].tolist() == plan.coords()[row].tolist()
        assert sample["split"] == ("val" if plan.split()[row] == VAL else "train")
    assert (data.width, data.patch_px, data.teacher, data.rows_per_shard) == (12, 32, "test-teacher", 4)
    assert data.plan.hash == plan.hash
    with pytest.raises(IndexError):
        data[78]


def test_splits_are_those_of_the_plan(folder: Path, data: StoreDataset) -> None:
    train, val = (open_store(folder, split=split) for split in ("train", "val"))
    assert sorted([*train.rows, *val.rows]) == data.rows.tolist()
    assert {val[i]["split"] for i in range(len(val))} == {"val"}
    assert len(val) == 15


def test_batches_are_in_the_order_asked_for(data: StoreDataset) -> None:
    asked = [50, 2, 50, 7]
    assert [sample["row"] for sample in data.__getitems__(asked)] == [int(data.rows[i]) for i in asked]
    (batch,) = loader(data, sampler=asked)
    assert batch["pixels"].shape == (4, 3, 32, 32)
    assert batch["coords"].shape == (4, 2)
    assert batch["slide"] == [data[i]["slide"] for i in asked]


class Counting:
    """A transform that changes its input in place, each time differently."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return pixels.mul_(0).add_(self.calls)


def test_a_row_that_stands_twice_in_a_batch_is_read_once_and_transformed_twice(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = open_store(folder, transform=Counting())
    reads = []
    read = dataset._OpenStore.read
    monkeypatch.setattr(dataset._OpenStore, "read", lambda *a: (reads.append(a[1]), read(*a))[1])
    samples = data.__getitems__([5, 2, 5, 5])
    assert len(reads) == 2
    assert [int(sample["pixels"].max()) for sample in samples] == [1, 2, 3, 4]
    first, _, second, _ = samples
    first["embedding"] += 1
    assert not torch.equal(first["embedding"], second["embedding"])
    first["slide"] = "changed"
    assert second["slide"] != "changed"
    plain = open_store(folder).__getitems__([5, 5])
    plain[0]["pixels"].fill_(0)
    assert torch.equal(plain[1]["pixels"], open_store(folder)[5]["pixels"])


def test_a_dataset_says_what_it_is(folder: Path, data: StoreDataset) -> None:
    assert repr(data) == f"StoreDataset({str(folder)!r}, teacher='test-teacher', rows=78, width=12)"


@pytest.mark.parametrize("index", [slice(2, 4), 1.0, "a", None, np.array([1, 2])])
def test_what_is_no_index_is_told(data: StoreDataset, index: Any) -> None:
    for read in (data.__getitem__, lambda index: data.__getitems__([0, index])):
        with pytest.raises(ConfigError, match=r"one at a time.*torch.utils.data.Subset"):
            read(index)
    assert data[np.int64(3)]["row"] == data[torch.tensor(3)]["row"] == data[3]["row"]  # type: ignore[index]


@pytest.mark.parametrize("value", ["a", 1.5, None])
def test_what_is_no_whole_number_is_told(data: StoreDataset, value: Any) -> None:
    for call, name in ((data.order, "seed"), (data.stream, "seed"), (data.order, "rank"), (data.order, "world")):
        with pytest.raises(ConfigError, match=f"{name}={value!r}: give a whole number"):
            call(**{name: value})
    for order in (data.order(), data.stream()):
        with pytest.raises(ConfigError, match=f"epoch={value!r}"):
            order.set_epoch(value)


def test_all_embeddings_at_once_are_those_of_the_rows(data: StoreDataset, folder: Path) -> None:
    assert np.array_equal(data.embeddings(), np.stack([data[i]["embedding"] for i in range(len(data))]))
    val = open_store(folder, split="val")
    assert np.array_equal(val.embeddings()[-1], val[-1]["embedding"])


def test_it_is_pickled_small_and_works_where_it_is_unpickled(data: StoreDataset) -> None:
    data[0]
    text = pickle.dumps(data)
    assert len(text) < 4000
    again: StoreDataset = pickle.loads(text)
    assert torch.equal(again[5]["pixels"], data[5]["pixels"])
    stream = pickle.loads(pickle.dumps(data.stream(seed=1)))
    assert [each["row"] for each in stream] == [each["row"] for each in data.stream(seed=1)]


def test_an_order_has_each_row_once_and_reads_few_shards_at_a_time(tmp_path: Path) -> None:
    data = open_store(make_store(tmp_path / "s.zarr", train=(96, 96), val=(8,), rows_per_shard=4).folder, split="train")
    order = data.order(seed=3)
    indices = list(order)
    assert sorted(indices) == list(range(len(data)))
    assert len(order) == len(data)
    shards = [int(data.rows[i]) // 4 for i in indices]
    stretch = SHARDS_MIXED * 4
    for start in range(0, len(shards), stretch):
        assert len(set(shards[start : start + stretch])) == SHARDS_MIXED
    assert indices == list(data.order(seed=3)) != list(data.order(seed=4))
    order.set_epoch(1)
    assert list(order) != indices
    assert list(data.order(shuffle=False)) == list(range(len(data)))


@pytest.mark.parametrize("world", [1, 2, 3, 5])
def test_processes_share_an_epoch_evenly(data: StoreDataset, world: int) -> None:
    parts = [list(data.order(seed=1, rank=rank, world=world)) for rank in range(world)]
    assert {len(part) for part in parts} == {len(data) // world}
    together = [index for part in parts for index in part]
    assert len(set(together)) == len(together) > len(data) - world


def test_a_stream_is_the_order(data: StoreDataset) -> None:
    stream = data.stream(seed=2)
    assert stream.num_samples == len(data)
    assert [each["row"] for each in stream] == [int(data.rows[i]) for i in data.order(seed=2)]
    stream.set_epoch(4)
    expected = data.order(seed=2)
    expected.set_epoch(4)
    assert [each["row"] for each in stream] == [int(data.rows[i]) for i in expected]


def same(one: Any, other: Any) -> None:
    """See that two samples or batches are equal."""
    assert one.keys() == other.keys()
    for name, value in other.items():
        assert torch.equal(one[name], value) if isinstance(value, torch.Tensor) else one[name] == value, name


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_workers_read_what_one_process_reads(folder: Path, how: str) -> None:
    data = open_store(folder, transform=negative)
    data[0]  # open in this process, which the workers must not share
    options = {"num_workers": 2, "multiprocessing_context": how}
    if how == "fork":
        alone = loader(data, sampler=data.order(seed=1))
        for batch, expected in zip(loader(data, sampler=data.order(seed=1), **options), alone, strict=True):
            same(batch, expected)
    stream = data.stream(seed=1)
    batches = loader(stream, persistent_workers=True, **options)
    first = list(batches)
    stream.set_epoch(1)
    assert sorted(rows_of(first)) == sorted(second := rows_of(batches)) == data.rows.tolist()
    assert rows_of(first) != second
    index = data.rows.tolist().index(int(first[0]["row"][0]))
    same({name: value[0] for name, value in first[0].items()}, data[index])
    assert torch.equal(first[0]["pixels"][0], 255 - open_store(folder)[index]["pixels"])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_opens_the_store_itself(folder: Path) -> None:
    """Files that two processes share have one position, and threads of the parent may hold their locks."""
    data = open_store(folder)
    data[0]
    opened = data._opened
    child = os.fork()
    if child == 0:
        data[0]
        os._exit(0 if data._opened is not opened and data._opened[0] == os.getpid() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    data[0]
    assert data._opened is opened


@pytest.fixture(scope="module")
def extracted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with tiles, two views made at once and one in a round, whose pixels are in the slides."""
    place = tmp_path_factory.mktemp("extracted")
    plan = plan_cohort(write_cohort(place / "slides"), tile_px=72, patches_per_slide=4)
    options = {"teacher": "test_resnet", "weights": write_teacher(place / "t.safetensors"), "workers": 1}
    options |= {"views": 3, "rows_per_shard": 4, "batch_size": 4, "device": "cpu", "preflight": False}
    extract_teacher(plan, place / "store.zarr", ExtractConfig.build(options | {"pixels": "none"}))
    extract_teacher(plan, place / "with.zarr", ExtractConfig.build(options))
    return place


@pytest.mark.slow
def test_views_are_those_that_the_teacher_saw_also_without_pixels(extracted: Path) -> None:
    teacher = Store(extracted / "with.zarr").first
    for view in range(3):
        kept = open_store(extracted / "with.zarr", view=view)
        read = open_store(extracted / "store.zarr", view=view, slides_root=extracted / "slides")
        for index in (0, len(kept) - 1):
            row = int(kept.rows[index])
            expected = teacher.views.apply(teacher.store.read_pixels(row), row, view)
            assert np.array_equal(kept[index]["pixels"].permute(1, 2, 0), expected)
            assert torch.equal(kept[index]["pixels"], read[index]["pixels"])
            assert np.array_equal(kept[index]["embedding"], teacher.read_embedding(row, view))
        batch = kept.__getitems__([0, len(kept) - 1])  # as a loader reads
        for one, index in zip(batch, (0, len(kept) - 1), strict=True):
            same(one, kept[index])
        assert np.array_equal(kept.embeddings(), np.stack([kept[i]["embedding"] for i in range(len(kept))]))
    with pytest.raises(ConfigError, match="views 0 to 2"):
        open_store(extracted / "with.zarr", view=3)
    away = open_store(extracted / "store.zarr", slides_root=extracted)
    with pytest.raises(StoreError, match=r"give the folder of the slides with slides_root=") as error:
        away[0]
    assert "--" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "vale"}, "did you mean val"),
        ({"teacher": "test-teachr"}, "did you mean test-teacher"),
        ({"view": 1}, "views 0 to 0"),
        ({"view": -1}, "views 0 to 0"),
        ({"view": "0"}, "view='0': give a whole number"),
        ({"view": None}, "view=None: give a whole number"),
        ({"split": ["train"]}, r"split=\['train'\]: the splits of a store are train and val"),
        ({"split": 0}, "split=0: the splits of a store are"),
        ({"teacher": 3}, "teacher=3: .* has embeddings of test-teacher"),
        ({"teacher": ["test-teacher"]}, r"teacher=\['test-teacher'\]"),
        ({"transform": 3}, "transform=3: give a function"),
        ({"transform": "negative"}, "give a function"),
        ({"slides_root": 3}, "3 is no path"),
        ({"slides_root": ""}, "'' is no path"),
        ({"slides_root": " \t"}, "is no path"),
    ],
)
def test_wrong_choices_are_told(folder: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        open_store(folder, **options)


def test_of_several_teachers_one_is_named(folder: Path, tmp_path: Path) -> None:
    """The words are those of the library: it has no flags."""
    several = copy_with_teacher(folder, tmp_path / "store.zarr", "second")
    with pytest.raises(ConfigError, match="embeddings of test-teacher, second: say whose, as teacher='test-teacher'"):
        open_store(several)
    with pytest.raises(ConfigError, match=r"teacher='secnd': .* test-teacher, second \(did you mean second\?\)$"):
        open_store(several, teacher="secnd")
    assert open_store(several, teacher="second").teacher == "second"


def test_wrong_ranks_are_told(data: StoreDataset) -> None:
    with pytest.raises(ConfigError, match="ranks are 0 to 1"):
        data.order(rank=2, world=2)
    for world in (0, -1):
        with pytest.raises(ConfigError, match=f"world={world}: there is at least one process"):
            data.order(world=world)
    with pytest.raises(ConfigError, match=f"world={len(data) + 1}: there are only {len(data)} rows"):
        data.order(world=len(data) + 1)


@pytest.mark.parametrize("epoch", [-1, 2**65])
def test_epochs_that_are_none_are_told(data: StoreDataset, epoch: int) -> None:
    with pytest.raises(ConfigError, match="epochs are counted from 0 on"):
        data.order().set_epoch(epoch)


def test_what_is_no_finished_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        open_store(tmp_path)
    unfinished = make_store(tmp_path / "s.zarr", shards=1)
    with pytest.raises(StoreError, match="not finished"):
        open_store(unfinished.folder)
    with pytest.raises(ConfigError, match=r"open_store s3://bucket/store: only"):
        open_store("s3://bucket/store")


def test_damage_is_named_where_it_is_read(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr")
    data = open_store(store.folder)
    path = store.first.shard_path("pixels", 0)
    content = bytearray(path.read_bytes())
    content[10] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match="damaged"):
        data[0]
