"""Candidates described by an encoder: its own embeddings, the same plan however it is made, and errors before work."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.commands import call_g2l, child_environment
from support.extraction import TEACHER, reference_model, write_cohort, write_teacher
from support.plans import make_plan

from pipeline.base.errors import ConfigError, EncoderError, G2LError, PlanError
from pipeline.base.loader import one_by_one
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.draws.candidates import NONE_READABLE
from pipeline.cohort.manifest.read import read_manifest
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.config.plan import PlanConfig
from pipeline.encoders.build import build_encoder
from pipeline.encoders.projected import as_facts, random_signs
from pipeline.slides.staging.ahead import Staging
from pipeline.store.format import Status
from pipeline.store.patches import PatchRead, PlannedPatches
from stages import plan as plan_stage
from stages.planning.sampler import BATCH, EncoderSampler, build_sampler, encoder_sampler
from stages.planning.to_extract import plan_beside

CLUSTERED = {"sample": "cluster", "candidates": 2, "clusters": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def sampler(weights: Path) -> EncoderSampler:
    return build_sampler(f"{TEACHER}@{weights}", 64, "cpu", 2)


@pytest.fixture(scope="module")
def by_encoder(cohort: Path, weights: Path) -> Plan:
    return make_plan(cohort, sampler_encoder=f"{TEACHER}@{weights}", **CLUSTERED)


def test_what_describes_a_patch_is_the_encoders_embedding(sampler: EncoderSampler, weights: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (BATCH + 3, 64, 64, 3), dtype=np.uint8)
    steps: list[int] = []

    def read(row: int, out: NDArray[np.uint8]) -> bool:
        out[:] = pixels[row]
        return row not in (1, BATCH)

    facts, readable = sampler.embed(one_by_one(read), len(pixels), steps.append)
    assert np.flatnonzero(~readable).tolist() == [1, BATCH]
    assert steps == [BATCH, 3]
    model = reference_model(TEACHER, weights)
    mean, std = (torch.tensor(model.pretrained_cfg[name]).view(1, 3, 1, 1) for name in ("mean", "std"))
    with torch.inference_mode():
        images = (torch.from_numpy(pixels[readable]).permute(0, 3, 1, 2) / 255 - mean) / std
        embeddings = torch.nn.functional.normalize(model(images), dim=1).numpy()
    expected = as_facts(embeddings @ random_signs(embeddings.shape[1]), "")
    assert np.abs(facts.astype(int) - expected).max() <= 1  # of 3,000 steps a unit
    assert np.ptp(facts, axis=0).min() > 10


@pytest.mark.slow
def test_the_plan_is_the_same_however_it_is_made(by_encoder: Plan, cohort: Path, weights: Path, tmp_path: Path) -> None:
    header, *lines = cohort.read_text().splitlines()
    (tmp_path / "m.csv").write_text("\n".join([header, *reversed(lines)]) + "\n")
    copy = tmp_path / "other.safetensors"
    copy.write_bytes(weights.read_bytes())
    threads = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        manifest = read_manifest(tmp_path / "m.csv", cohort.parent)
        values = {"patch_px": 64, "patches_per_slide": 12, "sampler_encoder": f"{TEACHER}@{copy}"} | CLUSTERED
        again = plan_stage.plan_slides(manifest, PlanConfig.build(values), workers=1)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)
    assert again.hash == by_encoder.hash
    assert again.audit == by_encoder.audit
    assert again.config == by_encoder.config


@pytest.mark.slow
def test_the_plan_says_by_which_encoder_and_weights(by_encoder: Plan, cohort: Path, weights: Path) -> None:
    sha256 = build_encoder(TEACHER, weights, 64).weights_sha256
    assert by_encoder.config.deciding()["sampler_encoder"] == f"{TEACHER}@sha256:{sha256}"
    colour, uniform = make_plan(cohort, **CLUSTERED), make_plan(cohort)
    assert len({by_encoder.hash, colour.hash, uniform.hash}) == 3
    assert "sampler_encoder" not in colour.config.record()
    assert by_encoder.num_rows == colour.num_rows == uniform.num_rows
    places = [[(s.slide_id, *xy) for s in p.slides for xy in s.coords_l0_px.tolist()] for p in (by_encoder, colour)]
    assert places[0] != places[1]


@pytest.mark.slow
def test_of_a_tile_the_encoder_sees_the_middle(sampler: EncoderSampler, cohort: Path) -> None:
    part = make_plan(cohort, tile_px=80).slides[0]
    root = cohort.parent
    found = sampler.describe([part], [AuditRow(part.slide_id, "ok")], root, IN_PLACE).facts[part.slide_id]
    tile = np.empty((80, 80, 3), np.uint8)
    patches = PlannedPatches(replace(make_plan(cohort, tile_px=80), slides=(part,)), None, tell=print)

    def read(row: int, out: NDArray[np.uint8]) -> bool:
        patches.read(row, tile)
        out[:] = tile[8:72, 8:72]
        return True

    one = replace(sampler, workers=1)
    np.testing.assert_array_equal(one.embed(one_by_one(read), len(part.split), len_of)[0], found)


IN_PLACE = Staging(None, tell=print)


def len_of(count: int) -> int:
    return count


def test_candidates_that_cannot_be_read_are_passed_over(
    sampler: EncoderSampler, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = PlannedPatches.read_some
    first, second, third = plan.slides[:3]

    def instead(place: object, row: int) -> PatchRead | None:
        if place == third.slide_id:
            return PatchRead(Status.NO_SLIDE, reason="it is gone")
        damaged = place == second.slide_id or row == 4
        return PatchRead(Status.UNREADABLE, reason="damaged") if damaged else None

    def read_some(self: PlannedPatches, rows: Sequence[int], out: NDArray[np.uint8]) -> list[PatchRead]:
        results = zip(rows, whole(self, rows, out), strict=True)
        return [instead(self.describe(row)["slide_id"], row) or result for row, result in results]

    monkeypatch.setattr(PlannedPatches, "read_some", read_some)
    audit = [AuditRow(part.slide_id, "ok", patches_taken=12, split="train") for part in (first, second, third)]
    pool = sampler.describe([first, second, third], audit, plan.slides_root, IN_PLACE)
    np.testing.assert_array_equal(pool.slides[0].coords_l0_px, np.delete(first.coords_l0_px, 4, axis=0))
    assert [part.slide_id for part in pool.slides] == list(pool.facts) == [first.slide_id]
    assert len(pool.facts[first.slide_id]) == 11
    assert [(row.status, row.patches_taken, row.reason, row.warnings) for row in pool.audit] == [
        ("ok", 12, "", "1 of 12 candidate patches cannot be read"),
        ("failed", 0, NONE_READABLE, ""),
        ("failed", 0, "it is gone", ""),
    ]


@pytest.mark.parametrize(
    ("name", "patch_px", "error", "words"),
    [
        ("test_resnet@scratch", 64, ConfigError, "random weights tell no tissue apart"),
        ("test_resnet@WEIGHTS", 64, EncoderError, "the weights do not fit the architecture: .* missing"),
        ("test_resnet@nowhere.safetensors", 64, EncoderError, "no such weights"),
        ("hibou-l@WEIGHTS", 64, ConfigError, "takes patches of 224 px, not of --patch-px 64"),
        ("test_resnot@WEIGHTS", 64, EncoderError, "did you mean"),
        ("a/folder", 64, G2LError, "--sampler-encoder|there is no such model"),
    ],
)
def test_wrong_encoders_are_errors_before_a_slide_is_read(
    name: str, patch_px: int, error: type[G2LError], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_teacher(tmp_path / "other.safetensors", "test_efficientnet")
    monkeypatch.setattr(plan_stage, "audit_slide", None)
    manifest = read_manifest(write_cohort(tmp_path / "slides", num_slides=1))
    options = {"patch_px": patch_px, "sampler_encoder": name.replace("WEIGHTS", str(other))} | CLUSTERED
    with pytest.raises(error, match=words):
        plan_stage.plan_slides(manifest, PlanConfig.build(options), workers=1)


def test_weights_that_give_no_numbers_are_named() -> None:
    built = build_encoder(TEACHER, "scratch", 64)
    with torch.no_grad():
        next(iter(built.module.parameters())).fill_(torch.finfo(torch.float32).max)
    broken = encoder_sampler(built, 64, torch.device("cpu"), 1)

    def read(row: int, out: NDArray[np.uint8]) -> bool:
        out[:] = np.arange(64, dtype=np.uint8)[:, None, None] * 4
        return True

    with pytest.raises(EncoderError, match=r"test_resnet@sha256:\w+ gives NaN or infinity"):
        broken.embed(one_by_one(read), 2, len_of)


@pytest.mark.slow
def test_the_command_plans_by_an_encoder_and_another_is_a_change(cohort: Path, weights: Path, tmp_path: Path) -> None:
    out = tmp_path / "store.plan.h5"
    options = ["--patch-px", "64", "--patches-per-slide", "4", "--sample", "cluster", "--clusters", "4"]
    code, said, errors = call_g2l(
        "plan", cohort, "--out", out, *options, "--sampler-encoder", f"{TEACHER}@{weights}", "--device", "cpu"
    )
    assert code == 0, errors
    assert "uniform takes" in said + errors
    plan = read_plan(out)
    assert str(plan.config.sampler_encoder).startswith(f"{TEACHER}@sha256:")
    assert str(weights) in (tmp_path / "store.plan.config.toml").read_text()
    values = {"patch_px": 64, "patches_per_slide": 4, "sample": "cluster", "clusters": 4, "device": "cpu"}
    same = PlanConfig.build(values | {"sampler_encoder": f"{TEACHER}@{weights}"})
    assert plan_beside(cohort, same, tmp_path / "store.zarr")[0].hash == plan.hash
    other = write_teacher(tmp_path / "other.safetensors", seed=1)
    for changed in (PlanConfig.build(values | {"sampler_encoder": f"{TEACHER}@{other}"}), PlanConfig.build(values)):
        with pytest.raises(PlanError, match="sampler_encoder: 'test_resnet@sha256:"):
            plan_beside(cohort, changed, tmp_path / "store.zarr")


@pytest.mark.slow
def test_no_other_plan_loads_torch(cohort: Path, tmp_path: Path) -> None:
    words = ["plan", str(cohort), "--out", str(tmp_path / "p.h5"), "--patch-px", "64", "--patches-per-slide", "2"]
    code = (
        "import sys\nfrom stages import cli\n"
        f"sys.argv = {['g2l', *words, '--sample', 'cluster', '--clusters', '2', '--workers', '1']!r}\n"
        "try:\n    cli.main()\nexcept SystemExit as end:\n    assert end.code in (0, None), end.code\n"
        "assert 'pipeline.cohort.draws.by_cluster' in sys.modules\n"
        "heavy = {'torch', 'timm'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=child_environment())
    assert done.returncode == 0, done.stderr
