"""The plan of stage one: an earlier one is taken again only where nothing has changed."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from support.commands import called
from support.earlier import unpack
from support.extraction import TEACHER, write_cohort, write_teacher
from support.plans import audited_plan, budget_of
from support.slides import make_slide
from support.stores import make_store

from pipeline.base.errors import ConfigError, G2LError, PlanError, StoreError
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.cohort.plan_hdf5 import read_plan, write_plan
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.config.tissue_rules import LATER_RULES
from pipeline.sampling import rank_slides
from pipeline.store.create import create_store
from pipeline.store.format import StoreSpec
from pipeline.store.store import Store
from stages.planning import to_extract
from stages.planning.outputs import beside
from stages.planning.to_extract import changed_rows, plan_beside, plan_to_extract


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
    again = called(*words).stderr
    assert "note: 1 slide has failed in " in again
    assert "choose another --out to try again" in again  # the store is of the old plan
    manifest.write_text(rows.format("0.5"))
    mended = called(*words)
    assert mended.returncode == 1
    assert "b: another path, case, center, mpp" in mended.stderr


def test_a_teacher_is_asked_for_before_slides_are_audited(cohort: Path, tmp_path: Path) -> None:
    """Its name, and the side of its patches."""
    for teacher, words in (("test_vti", r"did you mean test_vit"), ("uni", "takes patches of 224 px, these have 64")):
        extract = ExtractConfig.build({"teacher": teacher})
        with pytest.raises(G2LError, match=words):
            plan_to_extract(cohort, tmp_path / "s.zarr", extract, (), lambda: PlanConfig(patch_px=64))
    assert list(tmp_path.iterdir()) == []


def test_each_row_that_differs_from_the_plans_is_named(tmp_path: Path) -> None:
    rows = [ManifestRow(name, f"{name}.svs", name) for name in ("a", "b", "c")]
    plan = audited_plan(rows)
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
    plan = audited_plan([rows[name] for name in sorted(chosen)])
    changed = [row if row.slide_id in chosen else replace(row, case_id="x") for row in rows.values()]
    assert changed_rows(plan, Manifest(tuple(changed), tmp_path / "m.csv", tmp_path), max_slides=2, seed=3) == []


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


def test_stage_one_counts_its_own_teacher_and_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_extract, "require_teacher", lambda *_: None)  # it takes patches of 224
    manifest = write_cohort(tmp_path / "slides", num_slides=2)
    extract = ExtractConfig.build({"teacher": "uni", "pixels": "none"})
    made = plan_to_extract(manifest, tmp_path / "s.zarr", extract, (), lambda: budget_of(budget="0.02MB"))
    assert made.plan.num_rows == 20_000 // (1024 * 2)
    assert any("--budget 0.02MB with 2.05 kB of embeddings a patch and no pixels" in text for text in made.reports)


def test_an_option_that_the_plan_leaves_unsaid_is_named_by_what_it_was(cohort: Path, tmp_path: Path) -> None:
    plan_beside(cohort, PlanConfig(workers=1), tmp_path / "s.zarr")
    with pytest.raises(PlanError, match=r"\n  annotation_origin: 'auto' -> 'slide'\n"):
        plan_beside(cohort, PlanConfig(workers=1, annotation_origin="slide"), tmp_path / "s.zarr")
