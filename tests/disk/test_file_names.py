"""Names with accents: composed in the table and not on the disk, or the other way round."""

import os
import time
import unicodedata
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.commands import call_g2l
from support.extraction import write_cohort

from pipeline.base.errors import BenchmarkError, ManifestError
from pipeline.cohort.manifest.read import parse_manifest, read_manifest
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.cohort.sources import list_folder
from pipeline.disk import file_names
from pipeline.disk.file_names import file_named, files_named, name_trouble
from pipeline.evaluate.patch_benchmark.data import read_patch_set
from pipeline.evaluate.robustness.data import read_robustness_set
from pipeline.features.slide_files import files_of_slides, read_trees

NFC, NFD = (unicodedata.normalize(form, "Lyon Séance é") for form in ("NFC", "NFD"))


def both_are_kept(folder: Path) -> bool:
    """Whether the file system has both spellings as two files."""
    for name in (NFC, NFD):
        (folder / f"{name}.probe").touch()
    kept = len(list(folder.glob("*.probe"))) == 2
    for path in folder.glob("*.probe"):
        path.unlink()
    return kept


@pytest.mark.parametrize(("on_disk", "in_table"), [(NFC, NFD), (NFD, NFC), (NFD, NFD)])
def test_a_file_is_found_however_its_accents_are_written(tmp_path: Path, on_disk: str, in_table: str) -> None:
    path = tmp_path / on_disk / f"{on_disk}.svs"
    path.parent.mkdir()
    path.touch()
    asked = tmp_path / in_table / f"{in_table}.svs"
    assert file_named(asked).samefile(path)
    assert (len(files_named(asked)), name_trouble(asked)) == (1, "")
    assert file_named(tmp_path / in_table / "other é.svs") == tmp_path / in_table / "other é.svs"


@pytest.mark.parametrize("modified", [1e9, 4e9])
def test_a_folder_is_listed_once_for_all_names_and_again_when_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, modified: float
) -> None:
    """Also one that was unpacked with a time to come, which a wrong clock gave it: 4,000 names took 11 s."""
    folder, list_folder_anew = tmp_path / NFD, os.listdir
    folder.mkdir()
    for number in range(20):
        (folder / f"{NFD} {number}.svs").touch()
    os.utime(folder, (modified, modified))
    monkeypatch.setattr(file_names, "time", SimpleNamespace(time=lambda: time.time() + 2 * file_names.SETTLED_SECONDS))
    listed: list[str] = []

    def listdir(path: Path) -> list[str]:
        listed.append(os.fspath(path))
        return list_folder_anew(path)

    monkeypatch.setattr(os, "listdir", listdir)
    asked = [tmp_path / NFD / f"{NFC} {number}.svs" for number in range(40)]
    for path in asked:
        assert (len(files_named(path)), name_trouble(path)) == (int(int(path.stem.split()[-1]) < 20), "")
    assert listed.count(str(folder)) == 1
    time.sleep(0.05)  # longer than a tick of the file system's clock
    (folder / f"{NFD} 30.svs").touch()
    assert file_named(asked[30]).samefile(folder / f"{NFD} 30.svs")
    time.sleep(0.05)
    (folder / f"{NFD} 31.svs").touch()
    (folder / f"{NFD} 0.svs").unlink()
    os.utime(folder, (modified, modified))  # as tar and `rsync -a` set it back
    assert file_named(asked[31]).samefile(folder / f"{NFD} 31.svs")
    assert files_named(asked[0]) == []
    assert listed.count(str(folder)) == 3


def test_a_folder_that_has_just_changed_is_listed_each_time(tmp_path: Path) -> None:
    """Whatever its time says: a second change may come before the clock ticks."""
    folder = tmp_path / NFD
    folder.mkdir()
    for number in range(3):
        asked = tmp_path / NFD / f"{NFC} {number}.svs"
        assert files_named(asked) == []
        (folder / f"{NFD} {number}.svs").touch()
        os.utime(folder, (1e9, 1e9))
        assert file_named(asked).samefile(folder / f"{NFD} {number}.svs")


def test_plan_and_what_reads_it_find_the_slides(tmp_path: Path) -> None:
    write_cohort(tmp_path, num_slides=1).unlink()
    (tmp_path / "s0.svs").rename(tmp_path / f"{NFD}.svs")
    (tmp_path / "m.csv").write_text(f"slide_id,path,case_id\na,{NFC}.svs,k\n", encoding="utf-8")
    assert read_manifest(tmp_path / "m.csv").rows[0].path == f"{NFC}.svs"
    code, _, err = call_g2l(
        "plan",
        tmp_path / "m.csv",
        "--out",
        tmp_path / "p.h5",
        "--patch-px",
        64,
        "--min-tissue",
        0,
        "--patches-per-slide",
        4,
    )
    assert code == 0, err
    plan = read_plan(tmp_path / "p.h5")
    assert plan.slide_path(plan.slides[0]).is_file()


def test_two_files_that_differ_in_this_only(tmp_path: Path) -> None:
    if not both_are_kept(tmp_path):
        pytest.skip("this file system has one file for both")
    for name in (NFC, NFD):
        (tmp_path / f"{name}.svs").touch()
    table = tmp_path / "m.csv"
    table.write_text(f"slide_id,path\na,{NFC}.svs\n", encoding="utf-8")
    assert parse_manifest(table).slide_path(parse_manifest(table).rows[0]).name == f"{NFC}.svs"  # exactly this one
    mixed = NFC.replace("é", "e\u0301", 1)
    table.write_text(f"slide_id,path\na,{mixed}.svs\n", encoding="utf-8")
    with pytest.raises(
        ManifestError, match=r"could be .*\\xe9.* and .*u0301.* differ only in the encoding|u0301.* and "
    ):
        parse_manifest(table)
    with pytest.raises(ManifestError, match="differ only in the encoding of accents"):
        list_folder(tmp_path)
    table.write_text(f"slide_id,path\n{NFC},a.svs\n{NFD},b.svs\n", encoding="utf-8")
    with pytest.raises(ManifestError, match=r"is given on lines 2, 3; .*differ only in the encoding"):
        parse_manifest(table)
    (tmp_path / "p.csv").write_text(f"path,label\n{mixed}.svs,x\n", encoding="utf-8")
    with pytest.raises(BenchmarkError, match="differ only in the encoding"):
        read_patch_set(tmp_path / "p.csv")


def test_images_of_benchmarks_are_found(tmp_path: Path) -> None:
    (tmp_path / f"{NFD}.png").touch()
    (tmp_path / "p.csv").write_text(f"path,label,case_id\n{NFC}.png,x,{NFD}\nb.png,y,{NFC}\n", encoding="utf-8")
    patches = read_patch_set(tmp_path / "p.csv")
    assert patches.paths[0].is_file()
    assert patches.groups is not None
    assert len(set(patches.groups.tolist())) == 1  # one patient
    text = f"slide_id,patch_id,path,scanner\na,1,{NFC}.png,S\nb,1,b.png,T\n"
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    assert any(path.is_file() for path in read_robustness_set(tmp_path / "r.csv").paths)


def test_classes_of_folders_are_composed(tmp_path: Path) -> None:
    for place in (tmp_path / "train" / NFC, tmp_path / "test" / NFD):
        place.mkdir(parents=True)
        (place / "1.png").touch()
    assert set(read_patch_set(tmp_path).labels.tolist()) == {NFC}


def test_feature_files_are_found(tmp_path: Path) -> None:
    (tmp_path / f"{NFD}.h5").touch()
    trees = read_trees([("m", tmp_path)])
    found = files_of_slides([NFC, f"{NFD}.svs"], trees)
    assert [path.name for path in found.files["m"].values()] == [f"{NFD}.h5"]
    assert found.ids == (NFC, NFC)
