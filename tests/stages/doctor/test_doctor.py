"""`g2l doctor` as a command: of the machine, of each kind of input, and of what is none."""

import re
from pathlib import Path

import pytest
from support.commands import run_g2l
from support.extraction import TEACHER
from support.slides import make_slide

from pipeline.base.errors import G2LError
from pipeline.config.plan import PlanConfig
from stages.doctor.doctor import doctor, kind_of
from stages.doctor.work import TriedSlides

DEFAULTS = TriedSlides(PlanConfig().grid, PlanConfig().sampling)


def test_the_machine_alone(tmp_path: Path) -> None:
    text, _ = doctor(None, tmp_path, None, DEFAULTS)
    assert [line for line in text.splitlines() if not line.startswith(" ")][:4] == [
        "installed",
        "machine",
        "models",
        "outputs",
    ]
    assert not list(tmp_path.iterdir())


def test_each_kind_of_input_is_looked_at(good_store: Path) -> None:
    assert kind_of(good_store) == "store"
    text, _ = doctor(good_store, None, None, DEFAULTS)
    assert f"store {good_store}" in text
    assert TEACHER in text
    assert re.search(r"free in .*good", text)  # the folder that the store is in


@pytest.mark.slow
def test_the_command_and_its_exit_code(tmp_path: Path) -> None:
    manifest = tmp_path / "slides" / "manifest.csv"
    manifest.parent.mkdir()
    make_slide(manifest.with_name("a.tif"), width=1600, height=1280, mpp=0.5, downsamples=(1, 4))
    manifest.write_text("slide_id,path,case_id\na,a.tif,A\n")
    before = sorted(path.name for path in manifest.parent.iterdir())
    done = run_g2l("doctor", manifest, HF_TOKEN="hf_ThisIsNobodysTokenAtAll")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of 1 slide, if the 1 read" in done.stdout
    assert "hf_" not in done.stdout + done.stderr
    assert sorted(path.name for path in manifest.parent.iterdir()) == before
    (tmp_path / "g2l.toml").write_text("[plan]\nmpp = 0.25\n")
    finer = run_g2l("doctor", manifest, "--config", tmp_path / "g2l.toml")
    assert finer.returncode == 1
    assert "coarser than the target of 0.25" in finer.stdout
    manifest.write_text("slide_id,path\nx,absent.tif\n")
    assert run_g2l("doctor", manifest).returncode == 1


@pytest.mark.parametrize("name", ["folder", "text.txt", "absent"])
def test_what_is_none_of_them_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(G2LError, match=r"is no manifest|does not exist"):
        doctor(tmp_path / name, None, None, DEFAULTS)


def test_a_hint_says_what_to_look_at_instead(tmp_path: Path) -> None:
    """Of a folder of slides, one with a manifest, one with a store, and a plan."""
    for folder in ("slides", "tables", "stores/s.zarr"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tables" / "m.csv").touch()
    (tmp_path / "stores" / "s.zarr" / "zarr.json").touch()
    (tmp_path / "p.h5").touch()
    hints = {
        "slides": "g2l make-manifest .*slides --out slides.csv, and then g2l doctor slides.csv$",
        "tables": "g2l doctor .*m.csv$",
        "stores": "g2l doctor .*s.zarr$",
        "p.h5": "the manifest that it was made from; g2l inspect .*p.h5 shows the plan$",
    }
    for name, words in hints.items():
        with pytest.raises(G2LError, match=words):
            kind_of(tmp_path / name)


def test_a_damaged_store_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "s.zarr").mkdir()
    (tmp_path / "s.zarr" / "zarr.json").write_text("{}")
    text, code = doctor(tmp_path / "s.zarr", None, None, DEFAULTS)
    assert code == 1
    assert "TROUBLE store: " in text
