"""`g2l doctor` as a command: of the machine, of each kind of input, and of what is none."""

import errno
import os
import re
from pathlib import Path

import pytest
from support.commands import run_g2l
from support.extraction import TEACHER
from support.slides import make_slide

from pipeline.base.errors import G2LError
from pipeline.config.plan import PlanConfig
from stages.doctor.doctor import doctor, kind_of
from stages.doctor.estimate import TriedSlides

DEFAULTS = TriedSlides.by(PlanConfig())


def test_the_machine_alone(tmp_path: Path) -> None:
    text, _ = doctor(None, tmp_path, None, DEFAULTS)
    assert [line for line in text.splitlines() if not line.startswith(" ")][:4] == [
        "installed",
        "machine",
        "models",
        "outputs",
    ]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_table_of_plan_decides_what_is_estimated(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "listed.txt").write_text("case_1\n")
    table = f'[plan]\npatch_px = 64\nbudget = "1h"\nrate = 0.01\nexclude_cases = ["{tmp_path / "listed.txt"}"]\n'
    (tmp_path / "g2l.toml").write_text(table)
    done = run_g2l("doctor", cohort, "--config", tmp_path / "g2l.toml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "estimate: 36 patches of 3 slides, what --budget 1h buys of " in done.stdout
    assert "slide_1: " not in done.stdout


@pytest.mark.parametrize("name", ["folder", "text.txt", "absent"])
def test_what_is_none_of_them_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text.txt").write_text("x")
    with pytest.raises(G2LError, match=r"is no manifest|does not exist"):
        doctor(tmp_path / name, None, None, DEFAULTS)


@pytest.mark.parametrize("name", ["slides.txt", "slides", "slides.tsv.bak"])
def test_a_manifest_of_any_name_is_one(tmp_path: Path, name: str) -> None:
    """As for `plan`, which takes it: by its columns, though its rows be wrong."""
    (tmp_path / name).write_text("Slide ID,path\nx,absent.tif\nx\n")
    assert kind_of(tmp_path / name) == "manifest"
    (tmp_path / name).write_text("sample,file\nx,absent.tif\n")
    with pytest.raises(G2LError, match="is no manifest"):
        kind_of(tmp_path / name)


def test_a_folder_of_outputs_that_is_still_to_be_made(manifest: Path, tmp_path: Path) -> None:
    """All findings are told, and the estimate is held against the disk that the folder will be on."""
    text, code = doctor(manifest, tmp_path / "new" / "deep", None, DEFAULTS)
    assert code == 0, text
    assert f"folder: {tmp_path / 'new' / 'deep'} is still to be made, in {tmp_path}" in text
    assert f"free in {tmp_path}\n" in text
    assert "estimate: " in text
    assert not list(tmp_path.iterdir())


def test_a_hint_says_what_to_look_at_instead(tmp_path: Path) -> None:
    """Of a folder of slides, one with a manifest, one with a store, an exported student, and a plan."""
    for folder in ("slides", "tables", "stores/s.zarr", "student"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tables" / "m.csv").touch()
    (tmp_path / "stores" / "s.zarr" / "zarr.json").touch()
    (tmp_path / "student" / "student.json").touch()
    (tmp_path / "p.h5").touch()
    hints = {
        "slides": "g2l make-manifest .*slides --out slides.csv, and then g2l doctor slides.csv --slides-root .*slides$",
        "tables": "g2l doctor .*m.csv$",
        "stores": "g2l doctor .*s.zarr$",
        "student": "It is an exported student: g2l inspect .*student shows it$",
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


def test_a_store_without_its_metadata_is_a_finding(tmp_path: Path) -> None:
    """By its name or its parts; also an empty one."""
    (tmp_path / "s.zarr").mkdir()
    for part in ("embedding", "plan"):
        (tmp_path / "parts" / part).mkdir(parents=True)
    assert kind_of(tmp_path / "parts") == "store"
    text, code = doctor(tmp_path / "s.zarr", None, None, DEFAULTS)
    assert code == 1
    assert re.search(r"TROUBLE store: .*s\.zarr looks like a store, but has no zarr\.json\n +-> copy that", text)
    (tmp_path / "parts" / "plan").rmdir()
    with pytest.raises(G2LError, match="is no manifest"):
        kind_of(tmp_path / "parts")


@pytest.mark.parametrize("name", ["a.svs", "A.NDPI", "a.mrxs"])
def test_a_slide_is_known_by_its_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    words = rf"It is a slide by its name\. .*: g2l make-manifest {tmp_path} --out slides\.csv, and then g2l doctor"
    with pytest.raises(G2LError, match=words):
        kind_of(tmp_path / name)


@pytest.mark.timeout(20)  # a pipe would be waited for without end
def test_a_pipe_is_no_manifest(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.csv")
    with pytest.raises(G2LError, match=r"is no manifest .*: it is a pipe or device, not a file"):
        kind_of(tmp_path / "m.csv")


def test_what_may_not_be_read_is_said_with_who_can_mend_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By stand-ins for the system's answers: whoever may read everything gets no others."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "m.csv").write_text("slide_id,path\n")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for name, words in (("folder", "a folder that .*chmod u[+]rx .*folder"), ("m.csv", "a file that .*chmod u[+]r ")):
        with pytest.raises(G2LError, match=rf"{name} is {words}"):
            kind_of(tmp_path / name)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # a colleague, whom the owner's own right does not help
    for name, words in (("folder", "chmod -R g[+]rX .*folder, or o "), ("m.csv", "chmod g[+]r .*m.csv, or o ")):
        with pytest.raises(G2LError, match=words):
            kind_of(tmp_path / name)

    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "stat", refuse)
    with pytest.raises(G2LError, match=r"one of the folders above it may not be read"):
        kind_of(tmp_path / "folder" / "s.zarr")


@pytest.mark.skipif(os.geteuid() == 0, reason="the root user reads everything")
def test_a_real_folder_that_may_not_be_read(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir(mode=0)
    with pytest.raises(G2LError, match="folder is a folder that this user may not read"):
        kind_of(tmp_path / "folder")
    with pytest.raises(G2LError, match="one of the folders above it may not be read"):
        kind_of(tmp_path / "folder" / "m.csv")


@pytest.mark.slow
def test_the_advice_for_a_slide_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands that it names, one after the other: the slide is read."""
    (tmp_path / "work").mkdir()
    (tmp_path / "slides").mkdir()
    make_slide(tmp_path / "slides" / "a.svs", width=1600, height=1280, mpp=0.5)
    monkeypatch.chdir(tmp_path / "work")
    refused = run_g2l("doctor", "../slides/a.svs")
    first, second = r"make-manifest \S+ --out slides\.csv", r"doctor slides\.csv --slides-root [^ ,]+"
    commands = re.findall(f"g2l ({first}|{second})", refused.stderr)
    assert len(commands) == 2
    for words in commands:
        done = run_g2l(*words.split())
        assert done.returncode == 0, done.stdout + done.stderr
    assert "on tissue; planned in" in done.stdout
    without = run_g2l("doctor", "slides.csv")
    assert without.returncode == 1
    assert "--slides-root" in without.stdout
