"""What a doctor estimates for a whole cohort, beside what `plan` then makes."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.annotated import write_geojson
from support.slides import not_a_slide

from pipeline.cohort.manifest.read import read_manifest
from pipeline.config.plan import PlanConfig
from stages.doctor import work
from stages.doctor.estimate import TriedSlides, _scaled, estimate_cohort
from stages.doctor.findings import Finding
from stages.plan import plan_slides
from stages.planning.prices import prices_of


def by(**options: Any) -> TriedSlides:
    return TriedSlides.by(PlanConfig.build(options))


def test_an_estimate_scales_with_the_slides_and_the_patches(manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = read_manifest(manifest, None).rows
    _, audited = work.try_slide(read_manifest(manifest, None), "a", by())
    (few,) = estimate_cohort([audited], rows, manifest.parent, None, by())
    (many,) = estimate_cohort([audited], rows * 1000, manifest.parent, None, by())
    assert f"{audited.audit.patches_taken:,} patch" in few.words
    assert f"{audited.audit.patches_taken * 1000:,} patches" in many.words
    (capped,) = estimate_cohort([audited], rows * 1000, manifest.parent, None, by(patches_per_slide=2))
    assert capped.words.startswith("2,000 patches of 1,000 slides")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1))
    (full,) = estimate_cohort([audited], rows * 1000, manifest.parent, None, by())
    assert full.level == "trouble"
    assert "--pixels jpeg" in full.advice
    (bought,) = estimate_cohort([audited], rows * 1000, manifest.parent, None, by(budget="999"))
    assert "a smaller --budget" in bought.advice


def estimated(manifest: Path, **options: Any) -> tuple[int, dict[str, Finding]]:
    """Patches of the estimate, and the findings by what they are of, the last of each."""
    planned = by(**{"patch_px": 64} | options)
    found = {each.subject: each for each in work.look_at_manifest(manifest, manifest.parent, None, planned)}
    return int(found["estimate"].words.split(" patches")[0].replace(",", "")), found


def rows_of_plan(manifest: Path, **options: Any) -> int:
    config = PlanConfig.build({"patch_px": 64} | options)
    return plan_slides(read_manifest(manifest), config, workers=1, prices=prices_of(config)).num_rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"budget": "100"}, "100 patches of 4 slides, what --budget 100 buys of "),
        ({"budget": "2"}, "2 patches of 4 slides, what --budget 2 buys of "),
        ({"budget": "1h", "rate": 0.01}, "36 patches of 4 slides, what --budget 1h buys of "),
        ({"budget": "100", "max_slides": 2}, "100 patches of 2 slides, what --budget 100 buys of "),
        ({"budget": "1TB", "max_slides": 3}, " patches of 3 slides, within --budget 1TB, if the 3 read"),
        ({"max_slides": 2}, " patches of 2 slides, if the 2 read are like the rest; "),
        ({"max_slides": 3, "balance": "center", "patches_per_slide": 30}, " patches of 3 slides, if the 3 read"),
        ({"max_slides": 3, "sample": "cluster", "patches_per_slide": 9}, "27 patches of 3 slides, if the 3 read"),
    ],
)
def test_the_estimate_is_of_the_plan(cohort: Path, options: dict[str, Any], words: str) -> None:
    number, found = estimated(cohort, **options)
    assert number == rows_of_plan(cohort, **options)
    assert words in found["estimate"].words


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"budget_pixels": "jpeg", "budget_width": 384}, {"budget_pixels": "none"}])
def test_a_budget_in_bytes_bounds_the_estimate(cohort: Path, more: dict[str, Any]) -> None:
    """To some percent: of four slides three are read."""
    number, found = estimated(cohort, budget="1MB", **more)
    assert number == pytest.approx(rows_of_plan(cohort, budget="1MB", **more), rel=0.05)
    kind = {"jpeg": "pixels as JPEG", "none": "pixels, which are not kept,"}
    assert kind.get(more.get("budget_pixels", ""), "lossless pixels") in found["estimate"].words


@pytest.mark.slow
def test_slides_are_those_that_plan_takes(cohort: Path, tmp_path: Path) -> None:
    """With --max-slides, and without cases to exclude, which are not opened."""
    listed = tmp_path / "listed.txt"
    listed.write_text("case_1\nnobody\n")
    names = {f"slide_{number}" for number in range(1, 5)}
    for options in ({"max_slides": 2, "seed": 1}, {"max_slides": 1, "seed": 2}, {"exclude_cases": [str(listed)]}):
        config = PlanConfig.build({"patch_px": 64} | options)
        number, found = estimated(cohort, **options)
        plan = plan_slides(read_manifest(cohort), config, workers=1)
        assert names & found.keys() == {slide.slide_id for slide in plan.slides}
        assert number == plan.num_rows
    said = [(each.level, each.words) for each in work.look_at_manifest(cohort, tmp_path, None, TriedSlides.by(config))]
    assert ("ok", "--exclude-cases: 1 slide of 1 case left out of the plan, by 2 listed") in said
    assert ("note", "--exclude-cases: of 1 listed there is no slide: nobody") in said


def test_a_list_that_cannot_be_used_or_leaves_nothing_is_trouble(manifest: Path, tmp_path: Path) -> None:
    (tmp_path / "all.txt").write_text("A\n")
    (tmp_path / "none.txt").touch()
    for name, words in (("all", "leaves no slide to plan"), ("none", "lists no case"), ("absent", "absent.txt")):
        planned = by(exclude_cases=[str(tmp_path / f"{name}.txt")])
        found = {each.subject: each for each in work.look_at_manifest(manifest, tmp_path, None, planned)}
        subject = "excluded" if name == "all" else "plan"  # a list of all is one that `plan` reads
        assert found[subject].level == "trouble"
        assert words in found[subject].words
        assert not found.keys() & {"a", "estimate"}


def test_a_budget_without_a_rate_is_said_not_to_be_counted(manifest: Path, tmp_path: Path) -> None:
    number, found = estimated(manifest, budget="1h", rate_from=tmp_path / "absent.zarr")
    assert found["budget"].level == "trouble"
    assert "absent.zarr" in found["budget"].words
    assert ", without --budget 1h, which is not in this estimate, if the 1 read" in found["estimate"].words
    assert number == estimated(manifest, budget="1000000")[0]


@pytest.mark.slow
def test_slides_that_give_no_patch_count(cohort: Path, tmp_path: Path) -> None:
    """Those that fail, and those without annotations to include, as far as `plan` knows them."""
    write_geojson(tmp_path / "half.geojson", Tumor=(0, 0, 1000, 1200))
    paths = [cohort.with_name(f"slide_{number}.svs") for number in range(1, 5)]
    manifest = tmp_path / "annotated.csv"
    cells = [f"{path.stem},{path},{'half.geojson' if number < 2 else ''}" for number, path in enumerate(paths)]
    manifest.write_text("\n".join(["slide_id,path,annotations", *cells]))
    options = {"include": ["Tumor"]}
    number, found = estimated(manifest, **options)
    assert number == rows_of_plan(manifest, **options)
    assert "of 4 slides, if the 2 read are like the rest; 2 slides without annotations cannot give any" in (
        found["estimate"].words
    )
    not_a_slide(tmp_path / "broken.tif")
    manifest.write_text("\n".join(["slide_id,path,annotations", *cells[:2], "x,broken.tif,half.geojson"]))
    number, found = estimated(manifest, **options)
    assert number == rows_of_plan(manifest, **options)
    assert "of 3 slides, if the 3 tried are like the rest: 1 of them gives none" in found["estimate"].words


def test_numbers_are_scaled_to_the_sum_of_all() -> None:
    assert _scaled([54, 43, 0], 4 / 3) == [72, 57, 0]
    assert _scaled([1, 1, 1], 4 / 3) == [1, 2, 1]
