"""The files of a plan: none is written over, and an earlier plan is taken again only where nothing has changed."""

from pathlib import Path

import pytest
from support.commands import called
from support.extraction import TEACHER, write_cohort, write_teacher
from support.slides import make_slide


def test_the_remedy_for_a_failed_slide_is_noticed(tmp_path: Path) -> None:
    """A slide without mpp gets one in the manifest, as the error says: the old plan is not taken again in silence."""
    folder = tmp_path / "slides"
    make_slide(write_cohort(folder, num_slides=1).with_name("b.tif"), width=512, height=448, mpp=None, downsamples=(1,))
    manifest, weights = folder / "manifest.csv", write_teacher(tmp_path / "teacher.safetensors")
    rows = "slide_id,path,case_id,mpp\ns0,s0.svs,c0,\nb,b.tif,c1,{}\n"
    words = ["extract-teacher", manifest, "--out", tmp_path / "s.zarr", "--teacher", TEACHER, "--weights", weights,
             "--patch-px", "64", "--min-tissue", "0", "--patches-per-slide", "4", "--device", "cpu"]  # fmt: skip
    manifest.write_text(rows.format(""))
    assert called(*words).returncode == 3
    assert "delete the plan to try them again" in called(*words).stderr
    manifest.write_text(rows.format("0.5"))
    mended = called(*words)
    assert mended.returncode == 1
    assert "b: another path, case, center, mpp" in mended.stderr


def test_plans_of_like_names_do_not_share_files(cohort: Path, tmp_path: Path) -> None:
    for name in ("plan-0.25", "plan-0.5", "p.h5"):
        done = called("plan", cohort, "--out", tmp_path / name, "--patch-px", "64", "--patches-per-slide", "2")
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.audit.csv"))) == len(list(tmp_path.glob("*.config.toml"))) == 3


def test_a_stopped_plan_can_be_made_again(cohort: Path, tmp_path: Path) -> None:
    words = ["plan", cohort, "--out", tmp_path / "p.h5", "--overlays", tmp_path / "o", "--patch-px", "64"]
    assert called(*words).returncode == 0
    (tmp_path / "p.h5").unlink()  # as if it had been stopped before the end
    (tmp_path / "p.audit.csv").unlink()
    assert called(*words).returncode == 0
    other = called(*["plan", cohort, "--out", tmp_path / "q.h5", "--overlays", tmp_path / "o", "--patch-px", "64"])
    assert other.returncode == 1
    assert "is not overwritten" in other.stderr


@pytest.mark.parametrize("name", ["p.audit.csv", "p.config.toml", "o/slide_1.png"])
def test_files_beside_a_plan_are_not_written_over(name: str, cohort: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine\xff\xfe")
    done = called("plan", cohort, "--out", tmp_path / "p.h5", "--overlays", tmp_path / "o", "--patch-px", "64")
    assert done.returncode == 1
    assert "is not overwritten" in done.stderr
    assert path.read_bytes() == b"mine\xff\xfe"
