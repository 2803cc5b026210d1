"""`g2l plan --sample cluster` as a command: planted rare tissue is seen, and the plan is the same to the byte."""

import json
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
from support.commands import call_g2l, run_g2l
from support.plans import cohort_of
from support.planted import densities, from_densities

from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.disk.tables import read_table

SIDE = 64
PLACES = {"a": (12, 14), "b": (10, 16), "c": (14, 12)}
"""Row and column of the first of 2 x 2 patches of rare tissue on the slide."""
FLAGS = ("--patch-px", SIDE, "--patches-per-slide", 24, "--val-fraction", 0)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three slides of pink and purple tissue, each with four patches that are dense and striped."""
    folder = tmp_path_factory.mktemp("rare")
    for seed, (name, (row, column)) in enumerate(PLACES.items()):
        pixels = sf.make_pixels("tissue", 2048, 1792, seed=seed, mpp=0.5)
        where = np.s_[row * SIDE : (row + 2) * SIDE, column * SIDE : (column + 2) * SIDE]
        stripes = 0.5 * (np.arange(2 * SIDE) // 8 % 2)[:, None, None]
        pixels[where] = from_densities(0.4 * densities(pixels[where]) + np.array([0.2, 0.9, 0.5]) + stripes)
        sf.write_slide(folder / f"{name}.svs", pixels, mpp=0.5, downsamples=(1, 4))
    return cohort_of(folder, **{name: folder / f"{name}.svs" for name in PLACES})


def planned(manifest: Path, out: Path, *flags: object) -> Plan:
    done = run_g2l("plan", manifest, "--out", out, *FLAGS, *flags)
    assert done.returncode == 0, done.stderr
    return read_plan(out)


def num_rare(plan: Plan) -> int:
    """Patches that lie mostly on rare tissue."""
    found = 0
    for slide in plan.slides:
        row, column = PLACES[slide.slide_id]
        near = np.abs(slide.coords_l0_px - np.array([column, row]) * SIDE - SIDE // 2) <= SIDE
        found += int(near.all(axis=1).sum())
    return found


@pytest.mark.slow
def test_planted_tissue_is_seen_and_the_audit_counts_it(manifest: Path, tmp_path: Path) -> None:
    uniform = planned(manifest, tmp_path / "uniform.h5")
    cluster = ("--sample", "cluster", "--clusters", 8, "--candidates", 20)
    plans = [planned(manifest, tmp_path / f"{n}.h5", *cluster, "--workers", n) for n in (1, 2)]
    assert plans[0].num_rows == uniform.num_rows == 72
    assert num_rare(plans[0]) >= 2 * max(num_rare(uniform), 1)
    for ending in (".h5", ".audit.csv"):
        assert (tmp_path / f"1{ending}").read_bytes() == (tmp_path / f"2{ending}").read_bytes()
    rows = [record for _, record in read_table(tmp_path / "1.audit.csv", (), ",")[0]]
    for row, slide in zip(rows, plans[0].slides, strict=True):
        counts = json.loads(row["cluster_patches"]).values()
        assert sum(taken for _, taken in counts) == len(slide.split) == int(row["patches_taken"])
        assert all(taken <= pool for pool, taken in counts)
    code, shown, _ = call_g2l("inspect", tmp_path / "1.h5")
    table = [line.split() for line in shown[shown.index("cluster  candidates") :].splitlines()[2:]]
    assert code == 0
    assert sum(int(taken) for _, _, taken, _ in table) == 72
    assert "clusters" not in (tmp_path / "uniform.audit.csv").read_text()


@pytest.mark.slow
def test_wrong_options_are_refused_before_anything_is_written(manifest: Path, tmp_path: Path) -> None:
    for flags, words in (
        (("--sample", "cluster", "--budget", "100"), "does not go with --sample cluster"),
        (("--sample", "cluster", "--balance", "center"), "does not go with --sample cluster"),
        (("--clusters", 8), "goes with --sample cluster"),
        (("--candidates", 8), "goes with --sample cluster"),
        (("--sample", "cluster", "--candidates", 1), "greater than or equal to 2"),
        (("--sample", "clusters"), "did you mean cluster?"),
    ):
        code, _, errors = call_g2l("plan", manifest, "--out", tmp_path / "p.h5", *flags)
        assert (code, words in errors) == (1, True), errors
    assert list(tmp_path.iterdir()) == []
