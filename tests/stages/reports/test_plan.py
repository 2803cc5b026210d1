"""What `plan` says: a thousand slides in some lines, what is odd by name, and what the estimate rests on."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from support.commands import call_g2l
from support.czi import make_czi_slide
from support.extraction import made_up_plan

from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.read import read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import LATER_RULES
from pipeline.sampling import TRAIN, VAL
from stages.plan import plan_slides
from stages.reports.plan import MOST_LISTED, audit_table, estimate


def plan_of(audit: list[AuditRow]) -> Plan:
    return replace(made_up_plan(), audit=tuple(audit))


def well(number: int, **more: object) -> AuditRow:
    row = AuditRow(
        f"slide {number:04}",
        "ok",
        mpp=0.25,
        tissue_mm2=float(number),
        patches_available=number,
        patches_taken=min(number, 500),
    )
    return replace(row, **more)  # type: ignore[arg-type]


def test_a_thousand_slides_are_not_a_thousand_lines() -> None:
    audit = [well(i) for i in range(1000)]
    audit[17] = AuditRow("slide 0017", "failed", "a.svs: not a slide that OpenSlide can read")
    audit[400] = well(400, warnings="99% of it counts as tissue")
    text = audit_table(plan_of(audit))
    assert len(text.splitlines()) < 20
    assert "1,000 slides: 1 failed, 999 ok; a line each in the CSV" in text
    assert "slide 0017: a.svs: not a slide that OpenSlide can read" in text
    assert "slide 0400: warning: 99% of it counts as tissue" in text
    assert "slide 0018" not in text
    assert [line.split() for line in text.splitlines() if line.startswith("taken")] == [["taken", "0", "500", "500"]]


def test_lists_of_failed_slides_are_cut() -> None:
    audit = [AuditRow(f"slide {i:04}", "failed", f"reason {i}") for i in range(500)]
    text = audit_table(plan_of([*audit, *(well(i, warnings="odd") for i in range(500, 900))]))
    assert len(text.splitlines()) < 4 * MOST_LISTED
    assert text.count("reason ") == MOST_LISTED
    assert "... and 480 more failed or damaged; the CSV has all" in text
    assert "... and 380 more with warnings; the CSV has all" in text


def test_of_many_slides_with_warnings_those_that_say_something_rare_are_listed() -> None:
    audit = [well(i, warnings=f"pen took {20 + i % 70} % of its tissue") for i in range(200)]
    audit[90] = well(90, warnings="pen took 33 % of its tissue; 99% of it counts as tissue")
    audit[150] = well(150, warnings="like slide 0003, of another case")
    shown = [line for line in audit_table(plan_of(audit)).splitlines() if "warning: " in line]
    assert [line.split(": ")[0] for line in shown] == [
        "slide 0090", "slide 0150", *(f"slide {i:04}" for i in range(MOST_LISTED - 2))
    ]  # fmt: skip
    letters = [replace(well(0, warnings="pen took a third"), slide_id=chr(97 + i)) for i in range(26)]
    letters[24] = replace(letters[24], warnings="99% of it counts as tissue")
    assert "y: warning: 99%" in audit_table(plan_of(letters)), "one letter is no word of what is said"
    failed = [AuditRow(f"slide {i:04}", "failed", f"/data/{i}.svs: no such file") for i in range(200)]
    failed[120] = AuditRow("slide 0120", "failed", "/data/120.svs: damaged")
    text = audit_table(plan_of(failed))
    assert text.index("slide 0120: /data/120.svs: damaged") < text.index("slide 0000: /data/0.svs: no such file")
    assert text.splitlines()[2].startswith("slide 0120"), "the table has the slides that the list has"


def test_a_small_plan_has_a_line_a_slide() -> None:
    text = audit_table(plan_of([well(i) for i in range(5)]))
    assert [line.split("  ")[0] for line in text.splitlines()[2:]] == [f"slide {i:04}" for i in range(5)]


def test_a_table_of_nothing_that_opened() -> None:
    assert "30 slides: 30 failed" in audit_table(plan_of([AuditRow(f"s{i}", "failed", "x") for i in range(30)]))


def test_cases_that_differ_in_capitals_only() -> None:
    plan = made_up_plan()
    first, second = plan.slides
    alike = replace(plan, slides=(replace(first, case_id="P-1"), replace(second, case_id="p-1")))
    assert (
        "warning: These cases differ only in spelling (capitals, blanks, zeros, ...) and count as different:"
        " 'P-1' and 'p-1'." in estimate(alike)
    )
    unnamed = replace(plan, slides=tuple(replace(s, slide_id=s.case_id) for s in alike.slides))
    assert "warning: These slides, each a case of its own, differ only in spelling" in estimate(unnamed)
    centres = replace(plan, slides=(replace(first, center="Ulm"), replace(second, center="ulm ")))
    assert "warning: These centres differ only in spelling" in estimate(centres)
    assert "warning: These" not in estimate(plan)


def test_one_held_out_patch_is_too_few() -> None:
    plan = made_up_plan()
    first, second = plan.slides
    split = np.full(len(first.split), TRAIN, np.uint8)
    split[0] = VAL
    one = replace(plan, slides=(replace(first, split=split), replace(second, split=second.split * 0)))
    assert "warning: only one patch is held out, and scoring a student needs two" in estimate(one)
    assert "held out, and a" not in estimate(plan)


def test_more_held_out_than_trained_on_is_said() -> None:
    plan = made_up_plan()
    first, second = plan.slides
    most = replace(
        plan, slides=(replace(first, split=first.split * 0 + TRAIN), replace(second, split=second.split * 0 + VAL))
    )
    said = "warning: more patches are held out than trained on: 1 of 2 cases are held out, though --val-fraction is 0.1"
    assert said in estimate(most)
    asked = replace(most, config=plan.config.model_copy(update={"val_fraction": 0.5}))
    assert not any("more patches are held out" in estimate(other) for other in (plan, asked))


def plan_at(*mpps: float, tiling: str | None = "level0") -> Plan:
    """A plan of slides of which level 0, or the patches, have these um/px."""
    plan = made_up_plan()
    first = plan.slides[0]
    slides = [replace(first, geometry=replace(first.geometry, target_mpp=mpp, slide_mpp=mpp)) for mpp in mpps]
    return replace(plan, slides=tuple(slides), config=plan.config.model_copy(update={"tiling": tiling}))


@pytest.mark.parametrize(
    ("mpps", "said"),
    [
        ((0.5,), ""),
        ((0.4942, 0.504, 0.52), ""),
        ((0.25,), "has 0.25 um/px. Most encoders were trained at 0.5 um/px: a side of such a patch shows 0.5 times"),
        ((0.2431, 0.2525), "has 0.2431 to 0.2525 um/px. Most"),
        ((0.2431, 0.2525), "shows 0.49 to 0.51 times the length of tissue"),
        ((0.5, 0.25, 0.504), "has 0.25 um/px on 1 of 3 slides. Most"),
        ((1.0,), "a side of such a patch shows 2 times the length"),
        ((0.4545,), "has 0.4545 um/px. Most"),
    ],
)
def test_level_0_is_warned_of_by_its_own_resolution(mpps: tuple[float, ...], said: str) -> None:
    assert said in estimate(plan_at(*mpps))
    assert ("level 0" in estimate(plan_at(*mpps))) == bool(said)


def test_patches_of_the_resolution_that_was_asked_for_are_not_warned_of() -> None:
    assert "level 0" not in estimate(plan_at(0.25, tiling=None))


def test_what_the_estimate_rests_on() -> None:
    rows = [well(i, patches_taken=11, pixel_bytes=100_000, jpeg_bytes=40_000, patches_measured=20) for i in (1, 2)]
    plan = plan_of(rows)
    assert "about 2.20 MB of lossless pixels (measured on 40 patches of 2 slides)" in estimate(plan)
    assert "about 880 kB of JPEG pixels (measured on 40 patches of 2 slides)" in estimate(plan, pixels="jpeg")
    assert "and no pixels." in estimate(plan, pixels="none")


@pytest.mark.slow
def test_odd_slides_are_named(tmp_path: Path) -> None:
    """All tissue, and patches of one colour, which today's rules drop."""
    inside = sf.make_pixels("tissue", 3000, 3000, mpp=0.5)[1000:2000, 1000:2000]
    sf.write_slide(tmp_path / "full.svs", inside, mpp=0.5)
    canvas = np.full((2000, 2400, 3), 255, np.uint8)
    canvas[:1000, :1000] = 255 - inside // 2  # another slide
    make_czi_slide(tmp_path / "part.czi", canvas, mpp=0.5, scenes=[(0, 0, 1000, 1000)])  # all else was not scanned
    flat = sf.make_pixels("blank", 1000, 1000, mpp=0.5)
    flat[100:900, 100:900] = (224, 158, 192)
    sf.write_slide(tmp_path / "flat.svs", flat, mpp=0.5)
    sf.make_slide(tmp_path / "usual.svs", width=1000, height=1000, mpp=0.5, seed=1)
    paths = ("flat.svs", "full.svs", "part.czi", "usual.svs")
    write_manifest(tmp_path / "m.csv", [ManifestRow(Path(path).stem, path, path) for path in paths])
    manifest = read_manifest(tmp_path / "m.csv")
    by_rules = {row.slide_id: row for row in plan_slides(manifest, PlanConfig(patch_px=64), workers=1).audit}
    assert (by_rules["flat"].patches_taken, by_rules["flat"].status) == (0, "failed")
    plan = plan_slides(manifest, PlanConfig(patch_px=64, skip_rule=LATER_RULES), workers=1)
    warnings = {row.slide_id: row.warnings for row in plan.audit}
    assert "of 24 patches looked at are of one colour" in warnings["flat"]
    for name in ("full", "part"):
        assert "of it counts as tissue: is there no glass" in warnings[name]
    assert warnings["usual"] == ""


@pytest.mark.parametrize("command", [("plan", "--out", "plan.h5")])
def test_plan_of_a_folder_says_what_to_do(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "slides").mkdir()
    code, _, err = call_g2l(command[0], tmp_path / "slides", command[1], tmp_path / command[2])
    assert code == 1
    assert f"g2l make-manifest {tmp_path / 'slides'} --out slides.csv" in err
    assert "Is a directory" not in err
