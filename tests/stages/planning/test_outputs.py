"""The files of a plan: none is written over but by the same plan made again."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from support.commands import called, leftovers

from pipeline.base.errors import G2LError
from pipeline.cohort.draws.cluster_sheet import CLUSTER_SHEET
from pipeline.cohort.manifest.rows import Manifest, ManifestRow
from pipeline.config.base import to_toml
from pipeline.config.plan import PlanConfig
from pipeline.disk.asides import ASIDE_SUFFIX
from stages.planning.outputs import SlideFolder, beside, is_attempt, make_way, require_way
from stages.planning.write import write_new_plan


@pytest.mark.slow
def test_plans_of_like_names_do_not_share_files(cohort: Path, tmp_path: Path) -> None:
    for name in ("plan-0.25", "plan-0.5", "p.h5"):
        done = called("plan", cohort, "--out", tmp_path / name, "--patch-px", "64", "--patches-per-slide", "2")
        assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("*.audit.csv"))) == len(list(tmp_path.glob("*.config.toml"))) == 3


@pytest.mark.parametrize("out", [".", "/", ".."])
def test_a_folder_is_no_name_for_a_plan(
    out: str, cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(G2LError, match="is a folder"):
        write_new_plan(cohort, PlanConfig(), Path(out))


@pytest.mark.slow
def test_a_stopped_plan_can_be_made_again(cohort: Path, tmp_path: Path) -> None:
    words = ["plan", cohort, "--out", tmp_path / "p.h5", "--overlays", tmp_path / "o", "--patch-px", "64"]
    assert called(*words).returncode == 0
    (tmp_path / "p.h5").unlink()  # as if it had been stopped before the end
    (tmp_path / "p.audit.csv").unlink()
    assert called(*words).returncode == 0
    other = called(*["plan", cohort, "--out", tmp_path / "q.h5", "--overlays", tmp_path / "o", "--patch-px", "64"])
    assert other.returncode == 1
    assert "is not overwritten" in other.stderr


@pytest.mark.parametrize("name", ["p.audit.csv", "p.cases.csv", "p.config.toml", "o/slide_1.png"])
def test_files_beside_a_plan_are_not_written_over(name: str, cohort: Path, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine\xff\xfe")
    done = called("plan", cohort, "--out", tmp_path / "p.h5", "--overlays", tmp_path / "o", "--patch-px", "64")
    assert done.returncode == 1
    assert "is not overwritten" in done.stderr
    assert path.read_bytes() == b"mine\xff\xfe"


def pictures(folder: Path) -> SlideFolder:
    return SlideFolder(folder, ".png", "--overlays")


def test_the_folder_of_overlays_is_listed_as_often_for_a_hundred_slides_as_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing of a folder of thousands of pictures takes a tenth of a second."""
    listed, listdir = Counter[Path](), os.listdir

    def counted(folder: Path) -> list[str]:
        listed[Path(folder)] += 1
        return listdir(folder)

    monkeypatch.setattr(os, "listdir", counted)
    counts = []
    for number in (1, 100):
        rows = tuple(ManifestRow(f"s{i}", f"s{i}.svs", "k") for i in range(number))
        listed.clear()
        way = Manifest(rows, tmp_path / "m.csv", tmp_path), tmp_path / "p.h5", [pictures(tmp_path / "o")]
        require_way(*way)
        make_way(*way)
        counts.append(listed[tmp_path / "o"])
    assert counts[0] == counts[1] <= 2, counts
    (tmp_path / "o" / "s99.png").touch()
    with pytest.raises(G2LError, match=r"s99\.png exists and is not overwritten"):
        require_way(*way)


def test_pictures_that_a_kill_left_half_written_go(tmp_path: Path) -> None:
    left = [tmp_path / "o" / (name + ASIDE_SUFFIX) for name in ("s0.png", str(CLUSTER_SHEET))]
    for path in left:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rows = (ManifestRow("s0", "s0.svs", "k"),)
    make_way(Manifest(rows, tmp_path / "m.csv", tmp_path), tmp_path / "p.h5", [pictures(tmp_path / "o")])
    assert not any(path.exists() for path in left)


def test_overlays_that_a_file_system_would_take_for_one_are_refused(
    cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = cohort.read_text().splitlines()[:3]
    manifest = cohort.with_name("alike.csv")
    manifest.write_text("\n".join(rows).replace("slide_1,", "a,").replace("slide_2,", "A,") + "\n")
    monkeypatch.setattr("pipeline.disk.files.ignores_case", lambda _: True)
    with pytest.raises(G2LError, match="ignores case: A and a would be one file"):
        write_new_plan(manifest, PlanConfig(overlays=tmp_path / "o"), tmp_path / "p.h5")
    assert not (tmp_path / "p.h5").exists()


@pytest.mark.slow
def test_an_attempt_that_is_repeated_spares_what_others_wrote(cohort: Path, tmp_path: Path) -> None:
    """It overwrites its own files, but no corrected tissue, and nothing in folders that the first attempt had not."""
    out, tissue, other = tmp_path / "p.h5", tmp_path / "tissue", tmp_path / "masks"
    config = PlanConfig(patch_px=64, workers=1, max_slides=1, tissue_geojson=tissue)
    write_new_plan(cohort, config, out)
    out.unlink()
    write_new_plan(cohort, config, out)  # its own files
    out.unlink()
    path = next(tissue.iterdir())
    corrected = json.dumps(json.loads(path.read_text()), indent=2)
    path.write_text(corrected)
    with pytest.raises(G2LError, match=rf"{path.name} exists and is not overwritten"):
        write_new_plan(cohort, config, out)
    assert path.read_text() == corrected
    other.mkdir()
    mask = other / f"{path.stem}.png"
    mask.write_bytes(b"a mask")
    with pytest.raises(G2LError, match=rf"{mask.name} exists and is not overwritten"):
        write_new_plan(cohort, PlanConfig(patch_px=64, workers=1, overlays=other), out)
    assert mask.read_bytes() == b"a mask"


@pytest.mark.parametrize(
    ("out", "audit"), [("p.h5", "p.audit.csv"), ("plan-0.5", "plan-0.5.audit.csv"), ("a/p.h5.h5", "a/p.h5.audit.csv")]
)
def test_a_file_beside_a_plan_has_the_plans_name(out: str, audit: str) -> None:
    assert beside(Path(out), ".audit.csv") == Path(audit)


def test_a_record_of_options_is_an_attempt_at_the_plan_that_it_names(tmp_path: Path) -> None:
    record, out = tmp_path / "p.config.toml", tmp_path / "p.h5"
    assert not is_attempt(record, out)  # there is none
    record.write_text(to_toml({"plan": {"out": str(out)}}))
    assert is_attempt(record, out)
    assert not is_attempt(record, tmp_path / "q.h5")
    record.write_bytes(b"mine\xff")
    assert not is_attempt(record, out)


@pytest.mark.parametrize("option", ["overlays", "tissue_geojson"])
@pytest.mark.parametrize("below", ["", "x"])
def test_a_folder_that_cannot_be_made_is_named_with_its_option(
    option: str, below: str, cohort: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    config = PlanConfig.build({option: tmp_path / "file" / below})
    flag = "--" + option.replace("_", "-")
    with pytest.raises(G2LError, match=rf"cannot write to .*file: .*Choose another {flag} or fix its permissions"):
        write_new_plan(cohort, config, tmp_path / "p.h5")
    assert leftovers(tmp_path) == []
    assert not (tmp_path / "p.h5").exists()
