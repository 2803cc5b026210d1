"""A cohort cut by clusters: as many as uniform, splits apart, rare tissue seen; independent of threads and order."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from support.plans import SMALL, make_plan

from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.by_cluster import CASE_CAP, cut_by_cluster
from pipeline.cohort.draws.descriptors import NUM_FACTS
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import SlidePlan
from pipeline.config.groups import Sampling
from pipeline.config.plan import PlanConfig
from pipeline.sampling import TRAIN, VAL, sample_patches
from pipeline.slides.geometry import PatchGeometry
from stages.plan import plan_slides

SAMPLING = Sampling(25, 0, 0.1, method="cluster", clusters=6)
RARE = 0.02


def planted(seed: int = 0) -> tuple[list[SlidePlan], list[AuditRow], dict[str, NDArray[np.uint16]]]:
    """Ten slides of 100 candidates, of which few are of a tissue that looks different."""
    random = np.random.default_rng(seed)
    slides, audit, facts = [], [], {}
    for number in range(10):
        name, rare = f"s{number}", random.random(100) < RARE
        coords = np.stack([np.arange(100) * 448, np.full(100, number)], axis=1).astype(np.int64)
        split = np.full(100, VAL if number == 9 else TRAIN, np.uint8)
        geometry = PatchGeometry(224, 0.5, 0.25, 0, 1.0)
        slides.append(SlidePlan(name, name, f"c{number // 2}", None, None, None, (9999, 9999), geometry, coords, split))
        audit.append(AuditRow(name, "ok", patches_available=100, patches_taken=100))
        facts[name] = (random.normal(3000, 200, (100, NUM_FACTS)) + 4000 * rare[:, None]).astype(np.uint16)
    return slides, audit, facts


def test_as_many_as_uniform_in_each_split_and_rare_tissue_is_taken() -> None:
    for seed in range(3):
        slides, audit, facts = planted(seed)
        cut = cut_by_cluster(slides, audit, facts, SAMPLING)
        counts = {part.slide_id: len(part.split) for part in cut.slides}
        assert sum(counts.values()) == 250
        assert counts["s9"] == 25
        assert {row.slide_id: row.patches_taken for row in cut.audit} == counts
        assert sum(line[2] for line in cut.table) == sum(line[3] for line in cut.table) == 250
        assert sum(line[1] for line in cut.table) == 1000
        cases = {part.case_id: 0 for part in slides}
        seen = have = uniform = 0
        for part, before in zip(cut.slides, slides, strict=True):
            cases[part.case_id] += len(part.split)
            rare = facts[part.slide_id][:, 0] > 5000
            if part.slide_id != "s9":  # held out: there it is a tenth of the sample
                have += rare.sum()
                seen += rare[part.coords_l0_px[:, 0] // 448].sum()
                uniform += rare[sample_patches(part.slide_id, before.coords_l0_px, 25, 0)].sum()
        assert max(cases.values()) <= CASE_CAP * 50
        assert seen == have > uniform


@pytest.mark.parametrize(("rare", "of_slide", "of_case"), [(("s0",), 50, 75), (("s0", "s1"), 50, 75)])
def test_a_cluster_that_one_slide_or_case_has_alone_is_capped(
    rare: tuple[str, ...], of_slide: int, of_case: int
) -> None:
    """Half of what is taken would be of it: at most twice the slide's uniform 25, and 1.5 times the case's 50."""
    slides, audit, facts = planted()
    facts = {name: facts[name] % 4000 + np.uint16(4000 if name in rare else 0) for name in facts}
    cut = cut_by_cluster(slides, audit, facts, replace(SAMPLING, clusters=2))
    counts = {part.slide_id: len(part.split) for part in cut.slides}
    assert sum(counts.values()) == 250
    assert max(counts[name] for name in rare) <= of_slide
    assert counts["s0"] + counts["s1"] <= of_case
    assert max(counts.values()) == of_slide or counts["s0"] + counts["s1"] == of_case  # a bound is met


def test_examples_are_patches_that_are_taken() -> None:
    slides, audit, facts = planted()
    cut = cut_by_cluster(slides, audit, facts, SAMPLING)
    taken = {(part.slide_id, x, y) for part in cut.slides for x, y in part.coords_l0_px.tolist()}
    examples = [place for places in cut.examples.values() for place in places]
    assert set(examples) <= taken
    assert len(set(examples)) == len(examples) > 20


def test_no_slide_and_slides_without_candidates() -> None:
    assert cut_by_cluster([], [], {}, SAMPLING).slides == []


@pytest.mark.slow
def test_threads_and_order_do_not_matter_and_overlays_show_the_sample(cohort: Path, tmp_path: Path) -> None:
    options = SMALL | {"sample": "cluster", "clusters": 4, "candidates": 2}
    manifest = read_manifest(cohort)
    plan = plan_slides(manifest, PlanConfig.build(options), workers=1, overlays=tmp_path)
    header, *lines = cohort.read_text().splitlines()
    (tmp_path / "m.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    again = plan_slides(read_manifest(tmp_path / "m.csv", cohort.parent), PlanConfig.build(options), workers=3)
    uniform, larger = make_plan(cohort), make_plan(cohort, patches_per_slide=24)
    assert again.hash == plan.hash != uniform.hash
    assert again.audit == plan.audit
    assert (plan.num_rows, plan.count(VAL)) == (uniform.num_rows, uniform.count(VAL))
    candidates = {(s.slide_id, x, y) for s in larger.slides for x, y in s.coords_l0_px.tolist()}
    assert {(s.slide_id, x, y) for s in plan.slides for x, y in s.coords_l0_px.tolist()} < candidates
    assert (tmp_path / "clusters" / "sheet.png").stat().st_size > 1000
    assert all((tmp_path / f"{part.slide_id}.png").exists() for part in plan.slides)
