"""Commands that stage slides write what they write without, to the byte; and they leave nothing behind."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import openslide
import pytest
from support.commands import call_g2l
from support.extraction import TEACHER, array_files, extract, plan_cohort, store_files, write_cohort, write_teacher
from support.features import FeatureSlide, write_trident
from support.importing import run_import
from support.slides import damage_tiles, make_slide, not_a_slide
from support.staging import slow_source, watching

from pipeline.base.errors import G2LError
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.disk import first_look
from pipeline.disk.files import sha256_file
from pipeline.slides import reader
from pipeline.slides.staging import copies
from pipeline.store.store import Store

NUM_SLIDES = 5


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "t.safetensors")


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    """Five slides, of which one has two damaged tiles, another is gone and a third is no slide any more."""
    plan = plan_cohort(write_cohort(tmp_path / "slides", NUM_SLIDES))
    slides = tmp_path / "slides"
    damage_tiles(slides / "s1.svs", [(1, 1), (2, 3)], how="truncate", out=tmp_path / "damaged.svs")
    os.replace(tmp_path / "damaged.svs", slides / "s1.svs")
    (slides / "s2.svs").unlink()
    not_a_slide(slides / "s3.svs")
    return plan


@pytest.fixture
def opened() -> Iterator[list[str]]:
    """The files that this process opens by OpenSlide."""
    names: list[str] = []
    real = openslide.OpenSlide

    class Noting(real):  # type: ignore[misc, valid-type]
        def __init__(self, path: Path) -> None:
            names.append(str(path))
            super().__init__(path)

    with mock.patch.object(openslide, "OpenSlide", Noting):
        yield names


def biggest(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.glob("*.svs"))


@pytest.mark.slow
@pytest.mark.parametrize("fit", [1, 3])
def test_a_store_is_the_same(tmp_path: Path, weights: Path, opened: list[str], fit: int) -> None:
    plan = plan_cohort(write_cohort(tmp_path / "slides", NUM_SLIDES))
    extract(plan, tmp_path / "plain.zarr", weights, preflight=False)  # which reads a few patches, in place
    opened.clear()
    bound = fit * biggest(tmp_path / "slides") + 5000
    with watching(tmp_path / "stage") as seen:
        options = {"stage_dir": tmp_path / "stage", "stage_gb": bound / 1e9, "preflight": False}
        extract(plan, tmp_path / "staged.zarr", weights, **options)
    plain, staged = store_files(tmp_path / "plain.zarr"), store_files(tmp_path / "staged.zarr")
    assert plain == staged
    assert {Path(name).name for name in opened} == {f"s{i}.svs" for i in range(NUM_SLIDES)}
    assert all("/stage/staged." in name for name in opened)
    assert 0 < max(seen) <= bound
    assert list((tmp_path / "stage").iterdir()) == []


@pytest.mark.slow
def test_failures_are_the_same(tmp_path: Path, weights: Path, plan: Plan) -> None:
    """Damaged, missing and changed slides: the same rows fail, and are said to for the same reasons, byte for byte."""
    extract(plan, tmp_path / "plain.zarr", weights)
    extract(plan, tmp_path / "staged.zarr", weights, stage_dir=tmp_path / "stage")
    plain, staged = store_files(tmp_path / "plain.zarr"), store_files(tmp_path / "staged.zarr")
    assert plain == staged
    assert b"s3.svs" in plain["failures.csv"]
    assert b"stage" not in plain["failures.csv"]


@pytest.mark.slow
def test_damage_is_named_as_that_of_the_slide(tmp_path: Path, weights: Path) -> None:
    """A slide that was damaged before it was planned: its copy is read, and its rows fail as those of the slide."""
    manifest = write_cohort(tmp_path / "slides", 2)
    damage_tiles(tmp_path / "slides" / "s1.svs", [(1, 1), (2, 3)], how="truncate", out=tmp_path / "d.svs")
    os.replace(tmp_path / "d.svs", tmp_path / "slides" / "s1.svs")
    plan = plan_cohort(manifest, patches_per_slide=1000)
    told: list[str] = []
    with mock.patch("stages.extract_teacher.say", told.append):
        extract(plan, tmp_path / "plain.zarr", weights)
        extract(plan, tmp_path / "staged.zarr", weights, stage_dir=tmp_path / "stage")
    assert store_files(tmp_path / "plain.zarr") == store_files(tmp_path / "staged.zarr")
    assert Store(tmp_path / "staged.zarr").first.ledger.status_counts()["UNREADABLE"]
    assert not [words for words in told if "read in place" in words]


@pytest.mark.slow
def test_a_copy_that_differs_is_not_read(tmp_path: Path, weights: Path) -> None:
    """The slide is read in place, the user is told, and the store is the same."""
    plan = plan_cohort(write_cohort(tmp_path / "slides", 2))
    extract(plan, tmp_path / "plain.zarr", weights)
    told: list[str] = []
    copy_file = copies._copy_file

    def damage(part: Any, target: Path, go_on: Callable[[], object]) -> str:
        digest = copy_file(part, target, go_on)
        with open(target, "r+b") as f:
            f.seek(part.num_bytes // 2)
            f.write(b"damaged")
        return digest

    with mock.patch.object(copies, "_copy_file", damage), mock.patch("stages.extract_teacher.say", told.append):
        extract(plan, tmp_path / "staged.zarr", weights, stage_dir=tmp_path / "stage")
    assert store_files(tmp_path / "plain.zarr") == store_files(tmp_path / "staged.zarr")
    assert len([words for words in told if "is read in place, not staged: the copy differs" in words]) == 2


@pytest.mark.slow
def test_a_run_that_fails_does_not_hang(tmp_path: Path, weights: Path) -> None:
    """It ends while readers wait for copies; the same command without the cause then completes the store."""
    plan = plan_cohort(write_cohort(tmp_path / "slides", NUM_SLIDES))
    damage = tmp_path / "slides" / "s0.svs"
    content = damage.read_bytes()
    not_a_slide(damage)
    options = {"stage_dir": tmp_path / "stage", "stage_gb": (biggest(tmp_path / "slides") + 1) / 1e9}
    with slow_source(0.05), pytest.raises(G2LError, match="rows failed"):
        extract(plan, tmp_path / "staged.zarr", weights, max_failures=0, preflight=False, **options)
    assert list((tmp_path / "stage").iterdir()) == []
    damage.write_bytes(content)
    extract(plan, tmp_path / "staged.zarr", weights, retry_failures=True, **options)
    extract(plan, tmp_path / "plain.zarr", weights)
    assert Store(tmp_path / "staged.zarr").first.ledger.failures() == []
    assert list((tmp_path / "stage").iterdir()) == []


def test_what_was_refused_stays_refused(tmp_path: Path) -> None:
    """A slide that ended a process before (`at_hand`) is refused, though its copy is another file."""
    path = make_slide(tmp_path / "a.svs", width=300, height=200, downsamples=(1,))
    copy = Path(shutil.copyfile(path, tmp_path / "copy.svs"))
    assert reader.Slide(path, 0.5, mpp_overrides=True, copy=copy).path == path
    first_look.refuse_slide(path, "reading it crashes the process (SIGSEGV)")
    with pytest.raises(G2LError, match=r"a\.svs: reading it crashes"):
        reader.Slide(path, 0.5, mpp_overrides=True, copy=copy)


def test_a_child_looks_at_the_copy(tmp_path: Path) -> None:
    path = make_slide(tmp_path / "a.svs", width=300, height=200, downsamples=(1,))
    copy = Path(shutil.copyfile(path, tmp_path / "copy.svs"))
    looked: list[Path] = []

    def trouble(looks: first_look.FirstLooks, seen: Path) -> str:
        looked.append(seen)
        return f"reading it crashes the process (SIGABRT: {seen}: bad)"

    with (
        mock.patch.object(first_look.FirstLooks, "trouble", trouble),
        pytest.raises(G2LError, match=r"a\.svs: reading it crashes the process \(SIGABRT: [^ ]*a\.svs: bad\)"),
    ):
        reader.Slide(path, 0.5, mpp_overrides=True, copy=copy)
    assert looked == [copy]


# --- embed and import ---


def embed(folder: Path, weights: Path, out: Path, *more: object) -> tuple[int, str, str]:
    model = f"tiny={TEACHER}@{weights}"
    size = ["--patch-px", 64, "--mpp", 0.5, "--device", "cpu", "--workers", 2, "--batch-size", 4]
    return call_g2l("embed", model, folder, "--out", out, "--layout", "trident", *size, *more)


def files_of(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.h5"))}


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Three slides; the manifest gives the sha256 of each."""
    path = write_cohort(tmp_path / "slides", 3, width=768, height=640)
    lines = path.read_text().splitlines()
    hashes = [sha256_file(tmp_path / "slides" / f"s{i}.svs") for i in range(3)]
    path.write_text("\n".join(f"{a},{b}" for a, b in zip(lines, ["sha256", *hashes], strict=True)) + "\n")
    return path


@pytest.mark.slow
def test_embed_writes_the_same(tmp_path: Path, weights: Path, manifest: Path, opened: list[str]) -> None:
    """From copies, one at a time; a slide is read for its sha256 once, to copy it."""
    assert embed(manifest, weights, tmp_path / "plain")[0] == 0
    opened.clear()
    stage = ("--stage-dir", tmp_path / "stage", "--stage-gb", (biggest(manifest.parent) + 1) / 1e9)
    with mock.patch("stages.many.slide_work.check_sha256", side_effect=AssertionError):
        code, _, said = embed(manifest, weights, tmp_path / "staged", *stage)
    assert (code, "in place" in said) == (0, False), said
    assert files_of(tmp_path / "plain") == files_of(tmp_path / "staged")
    assert all("/stage/staged." in name for name in opened)
    assert list((tmp_path / "stage").iterdir()) == []
    opened.clear()
    assert embed(manifest, weights, tmp_path / "staged", *stage)[0] == 0
    assert not [name for name in opened if "/stage/" in name]  # nothing is staged of what is finished


@pytest.mark.slow
def test_embed_names_a_slide_that_is_not_the_manifests(tmp_path: Path, weights: Path, manifest: Path) -> None:
    manifest.write_text(manifest.read_text().replace(sha256_file(manifest.parent / "s1.svs"), "0" * 64))
    code, _, said = embed(manifest, weights, tmp_path / "out", "--stage-dir", tmp_path / "stage")
    assert code == 3
    assert "s1.svs is read in place, not staged: the copy has not the manifest's sha256" in said
    assert "s1.svs: its SHA-256 is not the manifest's" in (tmp_path / "out" / "failures.csv").read_text()
    assert [Path(name).stem for name in files_of(tmp_path / "out") if "features" in name] == ["s0", "s2"]
    code, _, said = embed(manifest, weights, tmp_path / "all", "--stage-dir", tmp_path / "stage", "--no-check-files")
    assert (code, "in place" in said) == (0, False), said


def test_embed_ends_when_a_run_fails(tmp_path: Path, weights: Path, manifest: Path) -> None:
    """An error amid a slide, while the next ones wait for room that the copy of this one holds."""
    stage = ("--stage-dir", tmp_path / "stage", "--stage-gb", (biggest(manifest.parent) + 1) / 1e9)
    with mock.patch("stages.many.slide_work.embed_slide", side_effect=G2LError("the disk is full")):
        code, _, said = embed(manifest, weights, tmp_path / "out", *stage)
    assert code == 1
    assert "the disk is full" in said
    assert list((tmp_path / "stage").iterdir()) == []


@pytest.mark.slow
def test_import_writes_the_same(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any], opened: list[str]
) -> None:
    """It looks at the slides in place, where it reads a few patches, and reads all patches from copies."""
    features = write_trident(tmp_path / "features", slides)
    run_import(features, tmp_path / "plain.zarr", options)
    opened.clear()
    run_import(features, tmp_path / "staged.zarr", options, stage_dir=tmp_path / "stage")
    assert array_files(tmp_path / "plain.zarr") == array_files(tmp_path / "staged.zarr")
    assert {Path(name).name for name in opened if "/stage/staged." in name} == {
        Path(slide.path).name for slide in extracted.plan.slides
    }
    assert list((tmp_path / "stage").iterdir()) == []


def test_options_that_make_no_sense(tmp_path: Path, weights: Path, manifest: Path) -> None:
    (tmp_path / "file").write_text("")
    code, _, said = embed(manifest, weights, tmp_path / "out", "--stage-gb", 3)
    assert (code, "goes with --stage-dir" in said) == (1, True), said
    code, _, said = embed(manifest, weights, tmp_path / "out", "--stage-dir", tmp_path / "file")
    assert (code, "file cannot be written" in said) == (1, True), said


@pytest.mark.slow
def test_the_command_takes_the_options(tmp_path: Path, weights: Path) -> None:
    plan = plan_cohort(write_cohort(tmp_path / "slides", 2))
    write_plan(plan, tmp_path / "plan.h5")
    teacher = ("--teacher", TEACHER, "--weights", weights, "--device", "cpu", "--batch-size", 4)
    stage = ("--stage-dir", tmp_path / "stage", "--stage-gb", 0.5)
    code, _, said = call_g2l("extract-teacher", tmp_path / "plan.h5", "--out", tmp_path / "s.zarr", *teacher, *stage)
    assert code == 0, said
    assert "stage" not in (tmp_path / "s.zarr" / "config.toml").read_text()
    embeddings = Store(tmp_path / "s.zarr").first.read_embeddings(0)
    assert np.isfinite(embeddings).all()
