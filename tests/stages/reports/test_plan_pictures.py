"""Pictures of a plan whose patches are chosen once all slides are known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf

from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import Plan
from pipeline.config.groups import TissueFiles
from pipeline.config.plan import PlanConfig
from stages.plan import plan_slides
from stages.reports.plan_pictures import draw_late_overlays


def test_slides_without_patches_have_pictures_whenever_the_others_are_cut(tmp_path: Path) -> None:
    """They are what one must look at."""
    sf.make_slide(tmp_path / "full.svs", width=512, height=512, mpp=0.5, downsamples=(1,), tile=64)
    blank = np.full((512, 512, 3), 240, np.uint8)
    sf.write_slide(tmp_path / "blank.tif", blank, mpp=0.5, downsamples=(1,))
    (tmp_path / "m.csv").write_text("slide_id,path\nfull,full.svs\nblank,blank.tif\n")
    config = PlanConfig.build({"patch_px": 64, "budget": "2", "val_fraction": 0})
    plan = plan_slides(read_manifest(tmp_path / "m.csv"), config, workers=1, overlays=tmp_path / "o")
    assert [slide.slide_id for slide in plan.slides] == ["full"]
    assert {path.name for path in (tmp_path / "o").iterdir()} == {"full.png", "blank.png"}


@pytest.mark.slow
def test_a_slide_that_is_gone_when_overlays_are_drawn_has_none(
    cohort: Path, plan: Plan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a plan by a budget, whose overlays come after its audit; of another one they were drawn with it."""
    manifest = read_manifest(cohort)
    first, second = replace(plan.slides[0], path="gone.svs"), plan.slides[1]
    bought = replace(plan, budget={"budget": "24"}, config=plan.config.model_copy(update={"budget": "24"}))
    draw_late_overlays(bought, (first, second), manifest, tmp_path, TissueFiles())
    assert [path.name for path in tmp_path.iterdir()] == [f"{second.slide_id}.png"]
    assert f"note: {first.slide_id} has no overlay: " in capsys.readouterr().err
    assert draw_late_overlays(plan, plan.slides, manifest, tmp_path / "none", TissueFiles()) == []
    assert draw_late_overlays(bought, (first, second), manifest, None, TissueFiles()) == []
    assert not (tmp_path / "none").exists()
