"""A plan that is made: alone in its place, by its budget, and nothing where it is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.commands import called, leftovers
from support.extraction import made_up_plan, write_cohort
from support.plans import audited_plan, budget_of

from pipeline.base.errors import BusyError, ConfigError, G2LError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.config.base import to_toml
from pipeline.config.plan import PlanConfig
from pipeline.slides.patch_sample import expected_pixel_bytes
from stages.planning import write
from stages.planning.write import failed_slides, write_new_plan
from stages.reports.plan import estimate


@pytest.mark.slow
@pytest.mark.parametrize("names", [("p", "p.h5"), ("p.h5", "p")])
def test_plans_that_share_the_files_beside_them_are_refused(
    names: tuple[str, str], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one while the first is being made, and afterwards."""
    first, second = (tmp_path / name for name in names)
    config = PlanConfig(patch_px=64, patches_per_slide=2, workers=1)
    real = write.plan_slides
    calls = []

    def plan_slides(*words: Any, **options: Any) -> Plan:
        calls.append(1)
        if len(calls) == 1:
            with pytest.raises(BusyError, match="in use by g2l plan"):
                write_new_plan(cohort, config, second)
        return real(*words, **options)

    monkeypatch.setattr(write, "plan_slides", plan_slides)
    write_new_plan(cohort, config, first)
    with pytest.raises(G2LError, match="is not overwritten"):
        write_new_plan(cohort, config, second)
    assert len(calls) == 1
    assert first.exists()
    assert not second.exists()
    assert leftovers(tmp_path) == []


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


def test_rules_beside_tissue_from_files_are_said_to_do_nothing(
    cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for options in ({"use_rule": ["fat"]}, {"skip_rule": ["haze"]}, {}):
        config = PlanConfig.build({"patch_px": 64, "workers": 1, "tissue_from": tmp_path, **options})
        with pytest.raises(ConfigError, match="has the file of no slide"):
            write_new_plan(cohort, config, tmp_path / "p.h5")
        assert ("--use-rule and --skip-rule change nothing" in capsys.readouterr().err) == bool(options)


def test_failed_and_damaged_slides_are_counted() -> None:
    rows = [ManifestRow(name, f"{name}.svs", name) for name in ("a", "b")]
    assert failed_slides(audited_plan(rows)) == 0
    assert failed_slides(audited_plan(rows, failed="b")) == 1
    assert failed_slides(replace(made_up_plan(), audit=(AuditRow("a", "damaged"), AuditRow("b", "ok")))) == 1


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
