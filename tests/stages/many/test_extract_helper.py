"""Stage one in several processes (`torchrun`), on one node and on two: the store is that of one, to the byte."""

import json
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.commands import leftovers, succeed
from support.extraction import FURTHER, TEACHER, array_files, extract, plan_cohort, write_cohort, write_teacher
from support.launched import MemoryStore, beating_in_a_thread, ended, start_torchrun

from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.launched.group import LaunchedGroup
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.stages import ExtractConfig
from pipeline.store.store import Store
from stages.extract_teacher import extract_teacher
from stages.many import extract_helper
from stages.many.extract_helper import help_extract, open_when_seen


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan, a teacher and the store `one` of one process; shared, not changed."""
    folder = tmp_path_factory.mktemp("made")
    plan = plan_cohort(write_cohort(folder / "slides"))
    write_plan(plan, folder / "plan.h5")
    write_teacher(folder / "t.safetensors")
    extract(plan, folder / "one", folder / "t.safetensors", rows_per_shard=2, batch_size=2)
    return folder


def words(made: Path, out: Path, *more: object, source: Path | None = None) -> list[object]:
    """`g2l extract-teacher` as `made` was made."""
    options = ["--teacher", TEACHER, "--weights", made / "t.safetensors", "--device", "cpu"]
    sizes = ["--rows-per-shard", 2, "--batch-size", 2]
    return ["extract-teacher", source or made / "plan.h5", "--out", out, *options, *sizes, *more]


def config(made: Path, **options: object) -> ExtractConfig:
    values = {"teacher": TEACHER, "weights": made / "t.safetensors", "device": "cpu", "workers": 1}
    return ExtractConfig.build(values | {"rows_per_shard": 2, "batch_size": 2} | options)


def call_to(pending: list[int], plan: Plan) -> dict[str, Any]:
    """A leader's call to shards of a store of the plan."""
    places = plan.places_beside(plan)
    return {"pending": pending, "failed": 0, "crashing": {}, "view": 0, "stages": False, "places": places}


@pytest.mark.slow
def test_one_node(made: Path, tmp_path: Path) -> None:
    """A manifest is planned once, and one process speaks. On two nodes: `kills/test_launched.py`."""
    slides = shutil.copytree(made / "slides", tmp_path / "slides")
    options = ["--patch-px", 64, "--min-tissue", 0, "--patches-per-slide", 12]
    call = words(made, tmp_path / "s", *options, source=slides / "manifest.csv")
    code, out, err = ended(start_torchrun(*call, processes=3))
    assert code == 0, out + err
    assert out.count("24 rows of 96 dimensions in 12 shards") == err.count("preflight:") == 1
    assert leftovers(tmp_path) == []
    succeed(*words(made, tmp_path / "alone", *options, source=slides / "manifest.csv"))
    assert array_files(tmp_path / "s") == array_files(tmp_path / "alone")
    code, out, err = ended(start_torchrun(*call))  # finished
    assert (code, "nothing was left to do" in out) == (0, True), out + err


@pytest.mark.slow
def test_a_failed_row_is_no_crash_of_the_process(made: Path, tmp_path: Path) -> None:
    """A launcher would start all processes again; one that says why is refused is another thing."""
    slides = shutil.copytree(made / "slides", tmp_path / "slides")
    (slides / "s1.svs").unlink()
    call = words(made, tmp_path / "s", "--slides-root", slides)
    code, out, err = ended(start_torchrun(*call))
    assert code == 0, out + err
    assert "failed rows: 12 no_slide" in out
    assert len((tmp_path / "s" / "failures.csv").read_text().splitlines()) == 13
    code, out, err = ended(start_torchrun(*words(made, tmp_path / "t", "--slides-root", slides, "--max-failures", 3)))
    assert code == 1, out + err
    assert "more than --max-failures 3" in err


@pytest.mark.slow
def test_a_leader_and_then_a_helper_in_one_process(made: Path, tmp_path: Path) -> None:
    """What a helper does when nothing is left, or all is."""
    store = MemoryStore()
    plan = Store(made / "one").plan
    leader = LaunchedGroup(store, 0, 2)
    with leader.leading():
        extracted = extract_teacher(plan, tmp_path / "s", config(made), group=leader)
    assert extracted.num_new_rows == 24
    assert array_files(tmp_path / "s") == array_files(made / "one")
    help_extract(LaunchedGroup(store, 1, 2), tmp_path / "s", config(made))  # the leader has gone

    beating = LaunchedGroup(store, 0, 2)
    for shard in (3, 7):
        (tmp_path / "s" / "shards" / f"{shard}.json").unlink()
        store.values.pop(f"done/{shard}")
    beating.call(call_to([3, 7], plan))
    helper = LaunchedGroup(store, 1, 2)
    del store.values["claim/3"], store.values["claim/7"]
    with beating_in_a_thread(beating, "done/3", "done/7"):
        help_extract(helper, tmp_path / "s", config(made))
    assert array_files(tmp_path / "s") == array_files(made / "one")
    assert Store(tmp_path / "s").first.pending == []
    assert leftovers(tmp_path) == []


def test_helpers_read_the_slides_where_the_leader_does(made: Path, tmp_path: Path) -> None:
    """The store was begun when slides lay elsewhere, and the plan made anew: their rows failed, with exit code 0."""
    out = shutil.copytree(made / "one", tmp_path / "s")
    records = out / "plan" / "zarr.json"
    records.write_text(records.read_text().replace(str(made / "slides"), str(tmp_path / "gone")))
    for entry in (out / "shards").iterdir():
        entry.unlink()
    helped = shutil.copytree(out, tmp_path / "helped")
    assert Store(out).plan.slides_root == tmp_path / "gone"
    store = MemoryStore()
    leader = LaunchedGroup(store, 0, 2)
    with leader.leading():
        extract_teacher(read_plan(made / "plan.h5"), out, config(made), group=leader)
    expected = array_files(made / "one") | {"plan/zarr.json": records.read_bytes()}
    assert array_files(out) == expected

    said = json.loads(store.values["call/1/1"])
    beating = LaunchedGroup(helper_store := MemoryStore(), 0, 2)
    beating.call(said)
    with beating_in_a_thread(beating, *(f"done/{shard}" for shard in said["pending"])):
        help_extract(LaunchedGroup(helper_store, 1, 2), helped, config(made))
    assert array_files(helped) == expected


def test_a_helper_with_another_teacher_is_refused(made: Path, tmp_path: Path) -> None:
    """Another file on that machine, or another device's arithmetic."""
    out = shutil.copytree(made / "one", tmp_path / "s")
    other = write_teacher(tmp_path / "other.safetensors", seed=5)
    store = MemoryStore()
    leader = LaunchedGroup(store, 0, 2)
    leader.call(call_to([], Store(out).plan))
    with beating_in_a_thread(leader):
        with pytest.raises(StoreError, match="weights_sha256"):
            help_extract(LaunchedGroup(store, 1, 2), out, config(made, weights=other))
        with pytest.raises(StoreError, match="precision: 'float32' -> 'bfloat16'"):
            help_extract(LaunchedGroup(store, 1, 2), out, config(made, precision="bfloat16"))


def test_rounds_are_for_a_whole_store(made: Path, tmp_path: Path) -> None:
    plan, out = Store(made / "one").plan, tmp_path / "s"
    with pytest.raises(ConfigError, match="rounds are added to a whole store"):
        extract_teacher(plan, out, config(made, views=2, views_per_epoch="fresh", part="1/2"))
    assert not out.exists()


def test_a_store_that_another_machine_does_not_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extract_helper, "VISIBLE_SECONDS", 0.0)
    with pytest.raises(StoreError, match="Do all machines see the same folder"):
        open_when_seen(tmp_path / "s")


def test_a_further_teacher_that_is_seen_late_is_waited_for(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the store and a round are: a file server shows another machine's new folder after up to a minute."""
    out, weights = shutil.copytree(made / "one", tmp_path / "s"), write_teacher(tmp_path / "f.safetensors", FURTHER)
    options = {"teacher": FURTHER, "weights": weights}
    extract_teacher(Store(out).plan, out, config(made, **options))
    hidden = (out / "teachers").rename(tmp_path / "hidden")

    def sleep(_: float) -> None:
        hidden.rename(out / "teachers")

    monkeypatch.setattr(extract_helper, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    store = MemoryStore()
    leader = LaunchedGroup(store, 0, 2)
    leader.call(call_to([], Store(out).plan))
    with beating_in_a_thread(leader, "1/came/1"):
        help_extract(LaunchedGroup(store, 1, 2), out, config(made, **options))
    assert (out / "teachers").is_dir()
