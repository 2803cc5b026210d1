"""`--patch-qc` from the command to the student: dropped rows are no failures, and nothing else changes."""

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.commands import call_g2l
from support.extraction import FURTHER, TEACHER, array_files, extract, plan_cohort, write_teacher
from support.planted import CELLS, PLANTED, planted_slide
from support.slides import damage_tiles
from support.staging import ends_within

from pipeline.base.errors import ConfigError, StoreError
from pipeline.cohort.plan import Plan
from pipeline.config.stages import ExtractConfig
from pipeline.evaluate.fidelity.rows import failed_rows, missing_note
from pipeline.store.check import check_metadata, check_shard
from pipeline.store.format import Status
from pipeline.store.parts.merge import merge_parts
from pipeline.store.store import Store
from pipeline.training.rows.choice import choose_rows
from stages.inspecting.store import describe_store
from stages.reports.extract import extract_report

NUM_ROWS = CELLS[0] * CELLS[1]
SIZES = {"rows_per_shard": 64, "batch_size": 8, "preflight": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    planted_slide(folder / "a.svs")
    planted_slide(folder / "b.svs", seed=1, planted={})
    (folder / "m.csv").write_text("slide_id,path,case_id\na,a.svs,c\nb,b.svs,d\n")
    write_teacher(folder / "t.safetensors")
    write_teacher(folder / "f.safetensors", FURTHER)
    return folder


@pytest.fixture(scope="module")
def plan(folder: Path) -> Plan:
    plan = plan_cohort(folder / "m.csv", patches_per_slide=1000, val_fraction=0.0)
    assert plan.num_rows == 2 * NUM_ROWS
    return plan


@pytest.fixture(scope="module")
def checked(folder: Path, plan: Plan) -> Store:
    """The store of a run with checks; shared, not changed."""
    return extract(plan, folder / "s.zarr", folder / "t.safetensors", patch_qc=True, **SIZES).store


def test_planted_rows_are_dropped_and_no_others(checked: Store) -> None:
    dropped = {record["row"]: record["status"].lower() for record in checked.first.ledger.dropped()}
    assert dropped == PLANTED
    assert checked.first.ledger.failures() == []
    assert not (checked.folder / "failures.csv").exists()
    with open(checked.folder / "dropped.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    assert list(lines[0]) == ["slide_id", "row", "x", "y", "reason", "value", "bound"]
    assert {int(line["row"]): line["reason"] for line in lines} == PLANTED
    for line in lines:
        if line["reason"] == "duplicate":
            assert (line["value"], line["bound"]) == ("1", "")
    status = checked.first.status()
    assert {row: Status(status[row]).name.lower() for row in np.flatnonzero(status != Status.OK)} == PLANTED
    assert np.isnan(checked.first.read_embedding(3)).all()


def statuses(store: Store) -> dict[int, str]:
    return {record["row"]: record["status"].lower() for record in store.first.ledger.dropped()}


@pytest.mark.slow
@pytest.mark.parametrize(("shard_rows", "staged"), [(7, False), (16, True)])
def test_a_field_is_found_again_in_a_later_shard(
    folder: Path, plan: Plan, tmp_path: Path, shard_rows: int, staged: bool
) -> None:
    """Whatever the shards are, and wherever slides are read from: the same rows, and those of a whole store."""
    options = SIZES | {"rows_per_shard": shard_rows, "batch_size": min(shard_rows, 4), "pixels": "none"}
    options |= {"stage_dir": tmp_path / "stage", "stage_gb": 1} if staged else {}
    made = extract(plan, tmp_path / "s.zarr", folder / "t.safetensors", patch_qc=True, **options)
    assert statuses(made.store) == PLANTED
    first = [record["value"] for record in made.store.first.ledger.dropped() if record["status"] == "DUPLICATE"]
    assert first == [1, 1]


@pytest.mark.slow
def test_room_for_one_slide_is_enough(folder: Path, plan: Plan, tmp_path: Path) -> None:
    """The fourth shard begins in a slide, of which earlier rows are looked at again, and its first batch reaches into
    the next one; a further teacher and a round read less of a slide than they have rows of it.
    """
    assert NUM_ROWS % 16
    largest = max((folder / name).stat().st_size for name in ("a.svs", "b.svs"))
    options = {"batch_size": 16, "preflight": False}
    first = {"rows_per_shard": 16, "pixels": "none", "patch_qc": True, "views": 2, "views_per_epoch": "fresh"}
    plain = extract(plan, tmp_path / "plain", folder / "t.safetensors", **options, **first)
    stage = {"stage_dir": tmp_path / "stage", "stage_gb": largest / 1e9}
    out = tmp_path / "s"
    made = ends_within(120, lambda: extract(plan, out, folder / "t.safetensors", **options, **first, **stage))
    assert array_files(made.store.folder) == array_files(plain.store.folder)
    (copied_round,), (plain_round,) = made.teacher.rounds, plain.teacher.rounds
    assert array_files(copied_round.folder) == array_files(plain_round.folder)
    further = options | {"teacher": FURTHER, **stage}
    assert ends_within(120, lambda: extract(plan, out, folder / "f.safetensors", **further)).num_failed == 0
    assert list((tmp_path / "stage").iterdir()) == []


def test_a_store_of_earlier_rules_is_continued_by_them(
    folder: Path, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a field is looked for within a shard: one of the two that are planted lies in the shard of the first."""
    options = SIZES | {"rows_per_shard": 16, "pixels": "none", "patch_qc": True}
    monkeypatch.setattr("stages.extracting.prepare.PATCH_RULES", 1)
    begun = extract(plan, tmp_path / "s.zarr", folder / "t.safetensors", **options).store
    expected = {row: status for row, status in PLANTED.items() if row != 55}
    assert statuses(begun) == expected
    files = array_files(begun.folder)
    for shard in (1, 3, 6):
        begun.first.ledger.path(shard).unlink()
    monkeypatch.undo()
    again = extract(plan, begun.folder, folder / "t.safetensors", **options)
    assert again.num_new_rows == 3 * 16
    assert again.teacher.settings["patch_qc"] == 1
    assert statuses(Store(begun.folder)) == expected
    assert array_files(begun.folder) == files


def test_the_rest_is_as_without(checked: Store, folder: Path, plan: Plan, tmp_path: Path) -> None:
    plain = extract(plan, tmp_path / "plain", folder / "t.safetensors", **SIZES).store
    ok = checked.first.ok_rows()
    assert len(ok) == plan.num_rows - len(PLANTED)
    for row in ok:
        np.testing.assert_array_equal(checked.read_pixels(row), plain.read_pixels(row))
        # batches of fewer patches round otherwise
        np.testing.assert_allclose(
            checked.first.read_embedding(row), plain.first.read_embedding(row), rtol=0.01, atol=0.01
        )
    entry = json.loads(plain.first.ledger.path(0).read_text())
    assert "dropped" not in entry
    assert "patch_qc" not in plain.first.settings
    assert max(plain.first.attributes["status_codes"].values()) == Status.NOT_FINITE


def test_ledger_is_readable_to_earlier_versions(checked: Store) -> None:
    """These refuse a status that they do not know; the codes of rows they skip."""
    earlier = {"ABSENT", "OK", "UNREADABLE", "EMPTY", "NO_SLIDE", "NOT_FINITE"}
    for _, entry in checked.first.ledger.entries():
        assert entry is not None
        assert entry["status"].keys() <= earlier
    assert checked.first.attributes["version"] == 1
    assert checked.first.attributes["status_codes"]["OUT_OF_FOCUS"] == Status.OUT_OF_FOCUS == 9


def test_reports_count_them_apart(checked: Store, folder: Path, plan: Plan) -> None:
    again = extract(plan, checked.folder, folder / "t.safetensors", patch_qc=True, **SIZES)
    assert again.num_failed == 0
    said = extract_report(again)
    assert "failed" not in said
    assert "rows dropped by --patch-qc: 1 one colour, 1 no tissue, 1 pen, 1 out of focus, 2 duplicate" in said
    assert "106 ok; dropped by --patch-qc: 1 one colour" in describe_store(checked)
    excluded = failed_rows(checked.first)
    assert sum(each.count for each in excluded) == len(PLANTED)
    assert all(each.by_rule for each in excluded)
    assert "--patch-qc dropped 6 of them" in missing_note(excluded)


@pytest.mark.slow
def test_that_none_was_dropped_is_said(folder: Path, tmp_path: Path) -> None:
    """So one sees that patches were checked; of a store without checks nothing is said."""
    (folder / "b.csv").write_text("slide_id,path,case_id\nb,b.svs,d\n")
    plan = plan_cohort(folder / "b.csv", patches_per_slide=8, val_fraction=0.0)
    made = extract(plan, tmp_path / "s.zarr", folder / "t.safetensors", patch_qc=True, **SIZES)
    assert extract_report(made).endswith("rows dropped by --patch-qc: none")
    assert "8 ok; dropped by --patch-qc: none" in describe_store(made.store)
    plain = extract(plan, tmp_path / "plain.zarr", folder / "t.safetensors", **SIZES)
    assert "--patch-qc" not in extract_report(plain) + describe_store(plain.store)


def test_verify_knows_them(checked: Store) -> None:
    assert check_metadata(checked.first) == []
    assert [check_shard(checked.first, shard) for shard in range(checked.first.num_shards)] == [[], []]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda dropped: dropped.pop(), "its dropped rows are not those of the status"),
        (lambda dropped: dropped[0].update(status="PEN"), "its dropped rows are not those of the status"),
        (lambda dropped: dropped[0].update(status="OK"), "damaged ledger entry"),
        (lambda dropped: dropped[0].pop("bound"), "damaged ledger entry"),
    ],
)
def test_a_changed_list_is_noticed(
    checked: Store, tmp_path: Path, change: Callable[[list[dict[str, object]]], object], said: str
) -> None:
    store = Store(Path(shutil.copytree(checked.folder, tmp_path / "s")))
    path = store.first.ledger.path(0)
    entry = json.loads(path.read_text())
    change(entry["dropped"])
    path.write_text(json.dumps(entry))
    assert said in str(check_shard(store.first, 0))


def test_training_skips_them(checked: Store) -> None:
    choice = choose_rows([checked.first], batch_size=8, val_rows=100, seed=0)
    assert len(choice.train) == 2 * NUM_ROWS - len(PLANTED)
    assert not set(PLANTED) & set(choice.train.tolist())


@pytest.mark.slow
@pytest.mark.parametrize("pixels", ["jpegxl", "none"])
def test_further_teachers_and_rounds_leave_them_out(pixels: str, folder: Path, plan: Plan, tmp_path: Path) -> None:
    out = tmp_path / "s.zarr"
    rounds = {"views": 2, "views_per_epoch": "fresh", "patch_qc": True, "pixels": pixels}
    extracted = extract(plan, out, folder / "t.safetensors", **SIZES, **rounds)
    assert extracted.num_failed == 0
    (made,) = extracted.teacher.rounds
    of_further = {"teacher": FURTHER, "batch_size": 8, "preflight": False}
    further = extract(plan, out, folder / "f.safetensors", **of_further)
    again = extract(plan, out, folder / "f.safetensors", **of_further, patch_qc=True)
    assert (again.num_new_rows, again.teacher.settings["patch_qc"]) == (0, further.teacher.settings["patch_qc"])
    assert further.num_failed == 0
    first = Store(out).first
    for other in (made, further.teacher):
        np.testing.assert_array_equal(other.status(), first.status())
        assert other.ledger.dropped() == first.ledger.dropped()
        assert not any(check_shard(other, shard) for shard in range(other.num_shards))
    assert (further.teacher.folder / "dropped.csv").read_bytes() == (out / "dropped.csv").read_bytes()


def test_stores_with_and_without_do_not_mix(checked: Store, folder: Path, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="patch_qc"):
        extract(plan, checked.folder, folder / "t.safetensors", **SIZES)
    plain = extract(plan, tmp_path / "plain", folder / "t.safetensors", **SIZES).store
    with pytest.raises(StoreError, match="patch_qc"):
        extract(plan, plain.folder, folder / "t.safetensors", patch_qc=True, **SIZES)
    with pytest.raises(ConfigError, match="--patch-qc: a further teacher"):
        extract(plan, plain.folder, folder / "f.safetensors", teacher=FURTHER, batch_size=8, patch_qc=True)


def test_a_retry_is_of_failed_rows_only(folder: Path, plan: Plan, tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes((folder / "a.svs").read_bytes())
    damage_tiles(folder / "b.svs", [(0, 0)], out=tmp_path / "b.svs")
    options = {**SIZES, "patch_qc": True, "slides_root": tmp_path, "rows_per_shard": NUM_ROWS}
    first = extract(plan, tmp_path / "s", folder / "t.safetensors", **options)
    assert first.num_failed > 0
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "s" / "shards").iterdir()}
    (tmp_path / "b.svs").write_bytes((folder / "b.svs").read_bytes())
    again = extract(plan, tmp_path / "s", folder / "t.safetensors", retry_failures=True, **options)
    assert again.num_failed == 0
    kept = {name for name, time in before.items() if (tmp_path / "s/shards" / name).stat().st_mtime_ns == time}
    assert kept == {"0.json"}  # that of slide a, with its dropped rows
    assert {record["row"] for record in again.store.first.ledger.dropped()} == PLANTED.keys()


@pytest.mark.slow
def test_the_command_ends_well_and_plans_a_manifest_itself(folder: Path, tmp_path: Path) -> None:
    options = ["--teacher", TEACHER, "--weights", folder / "t.safetensors", "--device", "cpu", "--patch-qc"]
    planned = ["--patch-px", 64, "--min-tissue", 0, "--patches-per-slide", 1000]
    code, said, errors = call_g2l("extract-teacher", folder / "m.csv", "--out", tmp_path / "s", *options, *planned)
    assert code == 0, errors
    assert "rows dropped by --patch-qc" in said
    assert "patch_qc = true" in (tmp_path / "s" / "config.toml").read_text()


def test_merged_parts_list_them(checked: Store, folder: Path, plan: Plan, tmp_path: Path) -> None:
    parts = [tmp_path / f"p{i}" for i in (1, 2)]
    for i, part in enumerate(parts, 1):
        extract(plan, part, folder / "t.safetensors", patch_qc=True, part=f"{i}/2", **SIZES)
    merged = merge_parts(parts, tmp_path / "m", link=True).teacher
    assert (merged.folder / "dropped.csv").read_bytes() == (checked.folder / "dropped.csv").read_bytes()
    assert array_files(merged.folder) == array_files(checked.folder)


def test_records_without_the_option_are_as_before() -> None:
    assert "patch_qc" not in ExtractConfig(teacher=TEACHER).record()
    assert ExtractConfig(teacher=TEACHER, patch_qc=True).record()["patch_qc"] is True
