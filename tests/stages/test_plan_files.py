"""The files of a plan: none is written over, and an earlier plan is taken again only where nothing has changed."""

import json
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import called, leftovers
from support.earlier import unpack
from support.extraction import TEACHER, made_up_plan, write_cohort, write_teacher
from support.slides import make_slide
from support.stores import make_store

from pipeline.base.errors import BusyError, ConfigError, G2LError, PlanError, StoreError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.budget import Prices
from pipeline.cohort.draws.cluster_sheet import CLUSTER_SHEET
from pipeline.cohort.manifest import Manifest, ManifestRow, row_hash
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.base import to_toml
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.config.tissue_rules import LATER_RULES
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.sampling import rank_slides
from pipeline.slides.patch_sample import expected_pixel_bytes
from pipeline.store.create import create_store, open_round
from pipeline.store.format import StoreSpec
from pipeline.store.store import Store
from stages import plan_files
from stages.plan_files import (
    SlideFolder,
    beside,
    changed_rows,
    failed_slides,
    is_attempt,
    plan_beside,
    plan_to_extract,
    prices_of,
    write_new_plan,
)
from stages.reports.plan import estimate


@pytest.mark.slow
def test_the_remedy_for_a_failed_slide_is_noticed(tmp_path: Path) -> None:
    """A slide without mpp gets one in the manifest, as the error says: the old plan is not taken again in silence."""
    folder = tmp_path / "slides"
    make_slide(write_cohort(folder, num_slides=1).with_name("b.tif"), width=512, height=448, mpp=None, downsamples=(1,))
    manifest, weights = folder / "manifest.csv", write_teacher(tmp_path / "teacher.safetensors")
    rows = "slide_id,path,case_id,mpp\ns0,s0.svs,c0,\nb,b.tif,c1,{}\n"
    words = [
        "extract-teacher",
        manifest,
        "--out",
        tmp_path / "s.zarr",
        "--teacher",
        TEACHER,
        "--weights",
        weights,
        "--patch-px",
        "64",
        "--min-tissue",
        "0",
        "--patches-per-slide",
        "4",
        "--device",
        "cpu",
    ]
    manifest.write_text(rows.format(""))
    assert called(*words).returncode == 3
    assert "choose another --out to try them again" in called(*words).stderr  # the store is of the old plan
    manifest.write_text(rows.format("0.5"))
    mended = called(*words)
    assert mended.returncode == 1
    assert "b: another path, case, center, mpp" in mended.stderr


@pytest.mark.slow
def test_plans_of_like_names_do_not_share_files(cohort: Path, tmp_path: Path) -> None:
    for name in ("plan-0.25", "plan-0.5", "p.h5"):
        done = called("plan", cohort, "--out", tmp_path / name, "--patch-px", "64", "--patches-per-slide", "2")
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.audit.csv"))) == len(list(tmp_path.glob("*.config.toml"))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("names", [("p", "p.h5"), ("p.h5", "p")])
def test_plans_that_share_the_files_beside_them_are_refused(
    names: tuple[str, str], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one while the first is being made, and afterwards."""
    first, second = (tmp_path / name for name in names)
    config = PlanConfig(patch_px=64, patches_per_slide=2, workers=1)
    real = plan_files.plan_slides
    calls = []

    def plan_slides(*words: Any, **options: Any) -> Plan:
        calls.append(1)
        if len(calls) == 1:
            with pytest.raises(BusyError, match="in use by g2l plan"):
                plan_files.write_new_plan(cohort, config, second)
        return real(*words, **options)

    monkeypatch.setattr(plan_files, "plan_slides", plan_slides)
    plan_files.write_new_plan(cohort, config, first)
    with pytest.raises(G2LError, match="is not overwritten"):
        plan_files.write_new_plan(cohort, config, second)
    assert len(calls) == 1
    assert first.exists()
    assert not second.exists()
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("out", [".", "/", ".."])
def test_a_folder_is_no_name_for_a_plan(
    out: str, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(G2LError, match="is a folder"):
        plan_files.write_new_plan(cohort, PlanConfig(), Path(out))


@pytest.mark.slow
def test_a_stopped_plan_can_be_made_again(cohort: Path, tmp_path: Path) -> None:
    words = ["plan", cohort, "--out", tmp_path / "p.h5", "--overlays", tmp_path / "o", "--patch-px", "64"]
    assert called(*words).returncode == 0
    (tmp_path / "p.h5").unlink()  # as if it had been stopped before the end
    (tmp_path / "p.audit.csv").unlink()
    assert called(*words).returncode == 0
    other = called(*["plan", cohort, "--out", tmp_path / "q.h5", "--overlays", tmp_path / "o", "--patch-px", "64"])
    assert other.returncode == 1
    assert "is not overwritten" in other.stderr


@pytest.mark.parametrize("name", ["p.audit.csv", "p.cases.csv", "p.config.toml", "o/slide_1.png"])
def test_files_beside_a_plan_are_not_written_over(name: str, cohort: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine\xff\xfe")
    done = called("plan", cohort, "--out", tmp_path / "p.h5", "--overlays", tmp_path / "o", "--patch-px", "64")
    assert done.returncode == 1
    assert "is not overwritten" in done.stderr
    assert path.read_bytes() == b"mine\xff\xfe"


def pictures(folder: Path) -> SlideFolder:
    return SlideFolder(folder, ".png", "--overlays")


def test_the_folder_of_overlays_is_listed_as_often_for_a_hundred_slides_as_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of a folder of thousands of pictures takes a tenth of a second."""
    listed, listdir = Counter[Path](), os.listdir

    def counted(folder: Path) -> list[str]:
        listed[Path(folder)] += 1
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", counted)
    counts = []
    for number in (1, 100):
        rows = tuple(ManifestRow(f"s{i}", f"s{i}.svs", "k") for i in range(number))
        listed.clear()
        way = Manifest(rows, tmp_path / "m.csv", tmp_path), tmp_path / "p.h5", [pictures(tmp_path / "o")]
        plan_files.require_way(*way)
        plan_files.make_way(*way)
        counts.append(listed[tmp_path / "o"])
    assert counts[0] == counts[1] <= 2, counts
    (tmp_path / "o" / "s99.png").touch()
    with pytest.raises(G2LError, match=r"s99\.png exists and is not overwritten"):
        plan_files.require_way(*way)


def test_pictures_that_a_kill_left_half_written_go(tmp_path: Path) -> None:
    left = [tmp_path / "o" / (name + ASIDE_SUFFIX) for name in ("s0.png", str(CLUSTER_SHEET))]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rows = (ManifestRow("s0", "s0.svs", "k"),)
    plan_files.make_way(Manifest(rows, tmp_path / "m.csv", tmp_path), tmp_path / "p.h5", [pictures(tmp_path / "o")])
    assert not any(path.exists() for path in left)


def test_overlays_that_a_file_system_would_take_for_one_are_refused(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = cohort.read_text().splitlines()[:3]
    manifest = cohort.with_name("alike.csv")
    manifest.write_text("\n".join(rows).replace("slide_1,", "a,").replace("slide_2,", "A,") + "\n")
    monkeypatch.setattr("pipeline.disk.files.ignores_case", lambda _: True)
    with pytest.raises(G2LError, match="ignores case: A and a would be one file"):
        plan_files.write_new_plan(manifest, PlanConfig(overlays=tmp_path / "o"), tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a list that is none": ({"exclude_cases": ["list.h5"]}, "not a list of cases .it is not UTF-8 text.*case a line"),
    "no such list": ({"exclude_cases": ["gone.csv"]}, "gone.csv: not a list of cases"),
    "no such class": ({"include": ["tumour"]}, "no slide has this class"),
    "no annotations": ({"sample": "class"}, "no row of the manifest has annotations"),
    "no such encoder": ({"sample": "cluster", "sampler_encoder": "nope@scratch"}, "nope"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_plan_leaves_nothing(
    name: str, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither options nor folders; what was there stays, also the options of an earlier attempt."""
    options, words = REFUSED[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.h5").write_bytes(b"\x89HDF\r\n\x1a\n\0\0")
    (tmp_path / "there").mkdir()
    before = sorted(tmp_path.rglob("*"))
    folders = {"overlays": Path("new/o"), "tissue_geojson": Path("there/t")}
    config = PlanConfig.build({"patch_px": 64, "workers": 1} | folders | options)
    for out in ("p.h5", "new/deep/p.h5", "there/p.h5"):
        with pytest.raises(G2LError, match=words):
            write_new_plan(cohort, config, Path(out))
        assert sorted(tmp_path.rglob("*")) == before
    attempt = to_toml({"plan": {"out": str(tmp_path / "p.h5")}})
    (tmp_path / "p.config.toml").write_text(attempt)
    with pytest.raises(G2LError, match=words):
        write_new_plan(cohort, config, Path("p.h5"))
    assert (tmp_path / "p.config.toml").read_text() == attempt


@pytest.mark.slow
def test_an_attempt_that_is_repeated_spares_what_others_wrote(cohort: Path, tmp_path: Path) -> None:
    """It overwrites its own files, but no corrected tissue, and nothing in folders that the first attempt had not."""
    out, tissue, other = tmp_path / "p.h5", tmp_path / "tissue", tmp_path / "masks"
    config = PlanConfig(patch_px=64, workers=1, max_slides=1, tissue_geojson=tissue)
    write_new_plan(cohort, config, out)
    out.unlink()
    write_new_plan(cohort, config, out)  # its own files
    out.unlink()
    path = next(tissue.iterdir())
    corrected = json.dumps(json.loads(path.read_text()), indent=2)
    path.write_text(corrected)
    with pytest.raises(G2LError, match=rf"{path.name} exists and is not overwritten"):
        write_new_plan(cohort, config, out)
    assert path.read_text() == corrected
    other.mkdir()
    mask = other / f"{path.stem}.png"
    mask.write_bytes(b"a mask")
    with pytest.raises(G2LError, match=rf"{mask.name} exists and is not overwritten"):
        write_new_plan(cohort, PlanConfig(patch_px=64, workers=1, overlays=other), out)
    assert mask.read_bytes() == b"a mask"


def test_a_teacher_is_asked_for_before_slides_are_audited(cohort: Path, tmp_path: Path) -> None:
    """Its name, and the side of its patches."""
    for teacher, words in (("test_vti", r"did you mean test_vit"), ("uni", "takes patches of 224 px, these have 64")):
        extract = ExtractConfig.build({"teacher": teacher})
        with pytest.raises(G2LError, match=words):
            plan_to_extract(cohort, tmp_path / "s.zarr", extract, (), lambda: PlanConfig(patch_px=64))
    assert list(tmp_path.iterdir()) == []


def test_rules_beside_tissue_from_files_are_said_to_do_nothing(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ({"use_rule": ["fat"]}, {"skip_rule": ["haze"]}, {}):
        config = PlanConfig.build({"patch_px": 64, "workers": 1, "tissue_from": tmp_path, **options})
        with pytest.raises(ConfigError, match="has the file of no slide"):
            write_new_plan(cohort, config, tmp_path / "p.h5")
        assert ("--use-rule and --skip-rule change nothing" in capsys.readouterr().err) == bool(options)


# --- the parts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "audit"), [("p.h5", "p.audit.csv"), ("plan-0.5", "plan-0.5.audit.csv"), ("a/p.h5.h5", "a/p.h5.audit.csv")]
)
def test_a_file_beside_a_plan_has_the_plans_name(out: str, audit: str) -> None:
    assert beside(Path(out), ".audit.csv") == Path(audit)


def test_a_record_of_options_is_an_attempt_at_the_plan_that_it_names(tmp_path: Path) -> None:
    record, out = tmp_path / "p.config.toml", tmp_path / "p.h5"
    assert not is_attempt(record, out)  # there is none
    record.write_text(to_toml({"plan": {"out": str(out)}}))
    assert is_attempt(record, out)
    assert not is_attempt(record, tmp_path / "q.h5")
    record.write_bytes(b"mine\xff")
    assert not is_attempt(record, out)


def audited(rows: list[ManifestRow], failed: str = "") -> Plan:
    """A plan of these rows; the slide `failed` has failed."""
    audit = [AuditRow(r.slide_id, "failed" if r.slide_id == failed else "ok", row_hash=row_hash(r)) for r in rows]
    return replace(made_up_plan(), audit=tuple(audit))


def test_each_row_that_differs_from_the_plans_is_named(tmp_path: Path) -> None:
    rows = [ManifestRow(name, f"{name}.svs", name) for name in ("a", "b", "c")]
    plan = audited(rows)
    for same in (rows, rows[::-1]):
        manifest = Manifest(tuple(same), tmp_path / "m.csv", tmp_path)
        assert changed_rows(plan, manifest, max_slides=None, seed=0) == []
    now = (replace(rows[0], case_id="x"), rows[1], ManifestRow("d", "d.svs", "d"))
    assert changed_rows(plan, Manifest(now, tmp_path / "m.csv", tmp_path), max_slides=None, seed=0) == [
        "d: new in the manifest",
        "c: no longer in the manifest",
        "a: another path, case, center, mpp, split, sha256 or annotations in the manifest",
    ]


def test_rows_that_a_subset_leaves_out_may_change(tmp_path: Path) -> None:
    rows = {name: ManifestRow(name, f"{name}.svs", name) for name in ("a", "b", "c", "d")}
    chosen = rank_slides(sorted(rows), 3)[:2]
    plan = audited([rows[name] for name in sorted(chosen)])
    changed = [row if row.slide_id in chosen else replace(row, case_id="x") for row in rows.values()]
    assert changed_rows(plan, Manifest(tuple(changed), tmp_path / "m.csv", tmp_path), max_slides=2, seed=3) == []


def test_failed_and_damaged_slides_are_counted() -> None:
    rows = [ManifestRow(name, f"{name}.svs", name) for name in ("a", "b")]
    assert failed_slides(audited(rows)) == 0
    assert failed_slides(audited(rows, failed="b")) == 1
    assert failed_slides(replace(made_up_plan(), audit=(AuditRow("a", "damaged"), AuditRow("b", "ok")))) == 1


def no_plan_config() -> PlanConfig:
    raise AssertionError("the options of a plan are asked for a manifest only")


def test_a_plan_and_a_store_are_read_as_they_are(tmp_path: Path) -> None:
    store, extract = make_store(tmp_path / "s.zarr", shards=0), ExtractConfig(teacher="x")
    write_plan(store.plan, tmp_path / "p.h5")
    for source, verb in ((tmp_path / "p.h5", "is"), (store.folder, "holds")):
        found = plan_to_extract(source, tmp_path / "out.zarr", extract, [], no_plan_config)
        assert found.plan.hash == store.plan.hash
        assert (found.source, found.num_bad_slides, found.reports) == (source, 0, ())
        with pytest.raises(ConfigError, match=rf"^--min-tissue, --patch-px: .* {verb} a finished plan; these options"):
            plan_to_extract(source, tmp_path / "out.zarr", extract, ["patch_px", "min_tissue"], no_plan_config)


def test_a_manifest_is_planned_once_for_a_store(cohort: Path, tmp_path: Path) -> None:
    config = PlanConfig(patch_px=64, patches_per_slide=2)
    made, path = plan_beside(cohort, config, tmp_path / "s.zarr")
    assert path == tmp_path / "s.plan.h5"
    written = path.stat().st_mtime_ns
    again, same = plan_beside(cohort, config, tmp_path / "s.zarr")
    assert (again.hash, same, path.stat().st_mtime_ns) == (made.hash, path, written)
    with pytest.raises(PlanError, match=r"s\.plan\.h5 was made from other inputs .*:\n  patches_per_slide: 2 -> 3\n"):
        plan_beside(cohort, PlanConfig(patch_px=64, patches_per_slide=3), tmp_path / "s.zarr")


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0"])
def test_the_plan_of_a_store_is_written_again_if_it_is_gone(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new one has identities that version 0.1.0 kept none of: the store of that version was refused."""
    unpack(version, tmp_path)
    monkeypatch.chdir(tmp_path)
    options = {"patch_px": 32, "mpp": 1.0, "patches_per_slide": 8, "val_fraction": 0.4, "slides_root": Path("slides")}
    earlier = read_plan(Path("plan.h5"))
    plan, path = plan_beside(Path("slides.csv"), PlanConfig.build(options), Path("store.zarr"))
    assert plan.hash == read_plan(path).hash == earlier.hash == Store(Path("store.zarr")).plan.hash
    assert read_plan(path).audit == earlier.audit
    assert "store.plan.h5 is gone, and was written again from store.zarr" in capsys.readouterr().err
    others = PlanConfig.build(options | {"patches_per_slide": 9})
    with pytest.raises(PlanError, match=r"^store\.plan\.h5 was made .*:\n  patches_per_slide: 8 -> 9\nChoose another"):
        plan_beside(Path("slides.csv"), others, Path("store.zarr"))
    path.unlink()
    with pytest.raises(PlanError, match=r"^the plan in store\.zarr was made .*:\n  patches_per_slide: 8 -> 9\nChoose"):
        plan_beside(Path("slides.csv"), others, Path("store.zarr"))
    assert not path.exists()


def test_a_plan_that_is_there_reads_the_slides_where_the_manifest_is_now(cohort: Path, tmp_path: Path) -> None:
    """A folder of slides, manifest and store was moved: the slides were looked for at the old place."""
    config, before = PlanConfig(patch_px=64, patches_per_slide=2), tmp_path / "before"
    before.mkdir()
    for path in (cohort, *cohort.parent.glob("*.svs")):
        shutil.copy(path, before)
    made, _ = plan_beside(before / cohort.name, config, before / "s.zarr")
    assert made.slides_root == before
    now = before.rename(tmp_path / "now")
    plan, path = plan_beside(now / cohort.name, config, now / "s.zarr")
    assert (plan.slides_root, plan.hash, read_plan(path).slides_root) == (now, made.hash, before)
    assert all(plan.slide_path(slide).is_file() for slide in plan.slides)


@pytest.mark.slow
def test_an_earlier_plan_goes_on_with_its_resampling(cohort: Path, tmp_path: Path) -> None:
    """The default was another one; only a call that asks for the other is told."""
    config, store = PlanConfig(patch_px=64, patches_per_slide=2), tmp_path / "s.zarr"
    made, path = plan_beside(cohort, config.model_copy(update={"resampling": "lanczos-pillow"}), store)
    assert plan_beside(cohort, config, store)[0].hash == made.hash
    asked = PlanConfig(patch_px=64, patches_per_slide=2, resampling="lanczos-torch")
    with pytest.raises(PlanError, match="\n  resampling: 'lanczos-pillow' -> 'lanczos-torch'\n"):
        plan_beside(cohort, asked, store)
    settings = {"rows_per_shard": 64, "pixels": "none", "dtype": "float32"}
    create_store(store, made, StoreSpec({"name": "x", "width": 3}, settings), {})
    path.unlink()  # the store's plan says it as well
    for ending in (".config.toml", ".audit.csv", ".cases.csv"):
        beside(path, ending).unlink()
    assert plan_beside(cohort, config, store)[0].hash == made.hash
    assert plan_beside(cohort, config, tmp_path / "new.zarr")[0].config.resampling == "lanczos-torch"


@pytest.mark.slow
def test_an_earlier_plan_goes_on_with_its_rules(cohort: Path, tmp_path: Path) -> None:
    """As with its resampling: the record of an earlier version names no rule."""
    config, store = PlanConfig(patch_px=64, patches_per_slide=2), tmp_path / "s.zarr"
    made, path = plan_beside(cohort, config.model_copy(update={"skip_rule": LATER_RULES}), store)
    assert "skip_rule" not in made.config.deciding()
    assert plan_beside(cohort, config, store)[0].hash == made.hash
    asked = PlanConfig(patch_px=64, patches_per_slide=2, skip_rule=["haze"])
    without = re.escape(f"\n  skip_rule: {list(LATER_RULES)} -> ['haze']\n")
    with pytest.raises(PlanError, match=without):
        plan_beside(cohort, asked, store)
    settings = {"rows_per_shard": 64, "pixels": "none", "dtype": "float32"}
    create_store(store, made, StoreSpec({"name": "x", "width": 3}, settings), {})
    path.unlink()
    for ending in (".config.toml", ".audit.csv", ".cases.csv"):
        beside(path, ending).unlink()
    assert plan_beside(cohort, config, store)[0].hash == made.hash
    assert plan_beside(cohort, config, tmp_path / "new.zarr")[0].config.skip_rule == []


@pytest.mark.slow
def test_a_plan_says_which_column_it_takes_for_the_case(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "m.csv"
    table.write_text(cohort.read_text().replace("case_id", "Patient ID"))
    config = PlanConfig(patch_px=64, patches_per_slide=2, slides_root=cohort.parent)
    made, _ = plan_beside(table, config, tmp_path / "s.zarr")
    said = "".join(capsys.readouterr())
    assert said.count(f"note: {table}: the column Patient ID is taken for case_id\n") == 1
    usual, _ = plan_beside(cohort, config, tmp_path / "t.zarr")
    assert [slide.case_id for slide in made.slides] == [slide.case_id for slide in usual.slides]


def test_nothing_is_planned_for_what_is_no_store(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(StoreError, match="exists and is not a store; nothing is overwritten"):
        plan_beside(cohort, PlanConfig(), tmp_path / "thesis")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def budget_of(**options: Any) -> PlanConfig:
    return PlanConfig.build({"patch_px": 64, "min_tissue": 0.0} | options)


def test_a_patch_costs_what_the_plan_or_its_stage_one_says() -> None:
    extract = ExtractConfig.build({"teacher": "uni", "dtype": "float32", "views": 3, "pixels": "jpeg"})
    assert prices_of(budget_of(budget="9")) == prices_of(budget_of(budget="1GB")) == Prices(3072, "jpegxl")
    assert prices_of(budget_of(budget="1GB"), extract) == Prices(1024 * 4 * 3, "jpeg")
    said = budget_of(budget="1GB", budget_width=10, budget_pixels="none")
    assert (prices_of(said), prices_of(said, extract)) == (Prices(20, "none"), Prices(120, "none"))
    assert prices_of(budget_of(budget="1h", rate=2.5), extract).patches_a_second == 2.5
    unknown = ExtractConfig.build({"teacher": "lcnet_050"})
    with pytest.raises(ConfigError, match="--budget 1GB: say with --budget-width how wide"):
        prices_of(budget_of(budget="1GB"), unknown)


def test_a_store_says_the_rate(good_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ledger = Store(good_store).first.ledger
    wanted = ledger.num_rows / ledger.seconds()
    assert prices_of(budget_of(budget="1h", rate_from=good_store)).patches_a_second == pytest.approx(wanted)
    assert f"the rate is that of {ledger.num_rows} patches, in which the start counts" in capsys.readouterr().err
    shutil.copytree(good_store, tmp_path / "s.zarr")
    for entry in (tmp_path / "s.zarr" / "shards").iterdir():
        entry.unlink()
    with pytest.raises(ConfigError, match="nothing there is finished"):
        prices_of(budget_of(budget="1h", rate_from=tmp_path / "s.zarr"))


def test_the_rate_of_a_store_is_that_of_patches_with_their_rounds_of_views(tmp_path: Path) -> None:
    """64 patches in 64 s and a view of them in 128 s are a patch in 3 s; a round that is not finished is refused."""
    store = make_store(tmp_path / "s.zarr")
    first, timed = store.first, budget_of(budget="1h", rate_from=tmp_path / "s.zarr")
    made = open_round(first, first.plan, 1, {"views_seed": 0}, {})
    for shard, entry in list(first.ledger.entries()):
        assert entry is not None
        first.ledger.write(shard, entry | {"seconds": 16.0})
        with pytest.raises(ConfigError, match=r"view 1 is not finished, .* patches with all their views"):
            prices_of(timed)
        made.ledger.write(shard, entry | {"seconds": 32.0})
    assert prices_of(timed).patches_a_second == pytest.approx(1 / 3)
    first.ledger.forget(3)  # its rate is that of what is done, and rounds count whole
    assert prices_of(timed).patches_a_second == pytest.approx(1 / 3)


def test_imported_features_say_no_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_store(tmp_path / "s.zarr")
    monkeypatch.setattr("stages.plan_files.made_with", lambda _: "import-features")
    with pytest.raises(ConfigError, match="its features were imported, so it does not say the rate"):
        prices_of(budget_of(budget="1h", rate_from=tmp_path / "s.zarr"))


def test_the_estimate_of_a_plan_is_its_budget(tmp_path: Path) -> None:
    """To the last patch, with the pixels and the embeddings that the budget counts."""
    manifest = write_cohort(tmp_path / "slides", num_slides=2)
    plan = write_new_plan(manifest, budget_of(budget="0.1MB", budget_width=100), tmp_path / "p.h5")
    total = expected_pixel_bytes([row for row in plan.audit if row.patches_taken], "jpegxl")
    assert total is not None
    most_of_one = max(row.pixel_bytes or 0 for row in plan.audit) + 200
    assert 100_000 - most_of_one < total + plan.num_rows * 200 <= 100_000
    text = estimate(plan, width=100)
    assert "--budget 0.1MB with 200 B of embeddings a patch and lossless pixels came to" in text


def test_a_manifest_is_planned_by_a_budget_once(tmp_path: Path) -> None:
    """A later call with the same budget takes the plan, whatever its rate comes from; another budget is refused."""
    manifest, store = write_cohort(tmp_path / "slides", num_slides=2), tmp_path / "s.zarr"
    plan, _ = plan_beside(manifest, budget_of(budget="1min", rate=0.2), store)
    assert plan.num_rows == 12
    assert plan.budget is not None
    assert plan.budget["patches_a_second"] == 0.2
    again, _ = plan_beside(manifest, budget_of(budget="1 min", rate=0.2), store, pytest.fail)
    assert again.hash == plan.hash
    with pytest.raises(PlanError, match=r"rate: 0\.2 -> 0\.3"):
        plan_beside(manifest, budget_of(budget="1min", rate=0.3), store)


@pytest.mark.slow
def test_the_command_plans_by_a_budget(tmp_path: Path) -> None:
    manifest = write_cohort(tmp_path / "slides", num_slides=2)
    words = ["plan", manifest, "--patch-px", 64, "--min-tissue", 0]
    both = called(*words, "--out", tmp_path / "p.h5", "--budget", 9, "--patches-per-slide", 5)
    assert both.returncode == 1
    assert "Give one of them" in both.stderr
    made = called(*words, "--out", tmp_path / "p.h5", "--budget", 9, "--sample", "spread")
    assert made.returncode == 0
    assert "--budget 9 came to 9 of " in made.stdout
    shown = called("inspect", tmp_path / "p.h5").stdout
    assert "spread" in shown
    assert "--budget 9 came to 9 of " in shown
    again = called("plan", "--config", tmp_path / "p.config.toml", "--out", tmp_path / "q.h5")
    assert again.returncode == 0
    assert read_plan(tmp_path / "q.h5").hash == read_plan(tmp_path / "p.h5").hash


def test_stage_one_counts_its_own_teacher_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_files, "require_teacher", lambda *_: None)  # it takes patches of 224
    manifest = write_cohort(tmp_path / "slides", num_slides=2)
    extract = ExtractConfig.build({"teacher": "uni", "pixels": "none"})
    made = plan_to_extract(manifest, tmp_path / "s.zarr", extract, (), lambda: budget_of(budget="0.02MB"))
    assert made.plan.num_rows == 20_000 // (1024 * 2)
    assert any("--budget 0.02MB with 2.05 kB of embeddings a patch and no pixels" in text for text in made.reports)


@pytest.mark.parametrize("option", ["overlays", "tissue_geojson"])
@pytest.mark.parametrize("below", ["", "x"])
def test_a_folder_that_cannot_be_made_is_named_with_its_option(
    option: str, below: str, cohort: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    config = PlanConfig.build({option: tmp_path / "file" / below})
    flag = "--" + option.replace("_", "-")
    with pytest.raises(G2LError, match=rf"cannot write to .*file: .*Choose another {flag} or fix its permissions"):
        write_new_plan(cohort, config, tmp_path / "p.h5")
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "p.h5").exists()


def test_an_option_that_the_plan_leaves_unsaid_is_named_by_what_it_was(cohort: Path, tmp_path: Path) -> None:
    plan_beside(cohort, PlanConfig(workers=1), tmp_path / "s.zarr")
    with pytest.raises(PlanError, match=r"\n  annotation_origin: 'auto' -> 'slide'\n"):
        plan_beside(cohort, PlanConfig(workers=1, annotation_origin="slide"), tmp_path / "s.zarr")
