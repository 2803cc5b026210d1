"""One slide under several names: links, hard links, copies, DICOM series; refused by plan, passed over in folders."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import support.slides as sf
import tifffile
from support.commands import call_g2l
from support.dicom import RGB, write_slide
from support.extraction import write_cohort
from support.files import put

from pipeline.base.errors import ManifestError
from pipeline.cohort.copies import copies_of_slides, near_copies, pixels_digest
from pipeline.cohort.manifest.read import parse_manifest, read_manifest
from pipeline.cohort.sources import list_folder


def test_copies_are_found_by_their_bytes_alone(tmp_path: Path) -> None:
    data = bytes(np.random.default_rng(0).integers(0, 256, 3 << 20, np.uint8))
    middle = len(data) // 2 + 70_000  # between two of the parts that are hashed first
    paths = [
        put(tmp_path / "a.svs", data),
        put(tmp_path / "b.svs", data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
        put(tmp_path / "sub" / "c.tif", data),
        put(tmp_path / "short.svs", data[:-1]),
        put(tmp_path / "empty.svs", b""),
        put(tmp_path / "empty2.svs", b""),
        tmp_path / "missing.svs",
        tmp_path / "link.svs",
        tmp_path / "hard.svs",
    ]
    (tmp_path / "link.svs").symlink_to("a.svs")
    os.link(tmp_path / "short.svs", tmp_path / "hard.svs")
    assert copies_of_slides(paths) == [[0, 2, 7], [3, 8]]


def test_slides_whose_own_file_is_the_same_for_all(tmp_path: Path) -> None:
    for name, number in (("a", 1), ("b", 2), ("c", 1)):
        put(tmp_path / f"{name}.mrxs", b"the same in all")
        put(tmp_path / name / "Slidedat.ini", f"SLIDE_ID = {number}".encode())
        put(
            tmp_path / name / "x.vms",
            b"[Virtual Microscope Specimen]\nNoLayers=1\nImageFile=x-0.jpg\nImageFile(1,0)=y\n",
        )
        put(tmp_path / name / "x-0.jpg", bytes([number]))
    assert copies_of_slides([tmp_path / f"{name}.mrxs" for name in "abc"]) == [[0, 2]]
    assert copies_of_slides([tmp_path / name / "x.vms" for name in "abc"]) == [[0, 2]]


@pytest.mark.parametrize("case", ["k", "l", ""])
def test_plan_refuses_one_slide_under_two_ids(tmp_path: Path, case: str) -> None:
    """Of one case, of two, or of none: a slide counts once."""
    write_cohort(tmp_path)
    shutil.copy(tmp_path / "s0.svs", tmp_path / "other name.tif")
    os.link(tmp_path / "s1.svs", tmp_path / "hard.svs")
    table = tmp_path / "m.csv"
    table.write_text(f"slide_id,path,case_id\na,s0.svs,k\nb,s1.svs,m\nc,other name.tif,{case}\n")
    with pytest.raises(
        ManifestError, match=r"line 2: one slide has several ids on lines 2, 4: 'a' \(.*s0.svs\) and 'c'"
    ):
        read_manifest(table)
    code, _, err = call_g2l("plan", table, "--out", tmp_path / "p.h5")
    assert (code, "Keep one row per slide" in err, (tmp_path / "p.h5").exists()) == (1, True, False)
    table.write_text(f"slide_id,path,case_id\na,s0.svs,k\nb,s1.svs,m\nc,hard.svs,{case}\n")
    with pytest.raises(ManifestError, match=r"s1\.svs has several ids on lines 3, 4"):
        parse_manifest(table)  # by one file, which embed and import-features refuse as well


def test_near_copies_are_told_by_what_is_known() -> None:
    assert near_copies([None, "a", "b", None, "a", "c", "b", "a"]) == [[1, 4, 7], [2, 6]]
    assert near_copies([]) == []
    assert near_copies(["a", "a", None, "c", None], [None, "x", "x", None, None]) == [[0, 1, 2]]
    assert near_copies(["a", "b", "b", "a"], ["x", "y", "x", None]) == [[0, 1, 2, 3]]


def test_pixels_tell_slides_unless_they_are_blank() -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)
    well, torn = np.zeros((5, 4), bool), np.zeros((5, 4), bool)
    torn[0] = True
    assert pixels_digest(image, well, (64, 80)) == pixels_digest(image.copy(), well, (64, 80))
    others = [pixels_digest(image, well, (64, 79)), pixels_digest(image ^ (image == image[0, 0]), well, (64, 80))]
    assert len({pixels_digest(image, well, (64, 80)), *others}) == 3
    blank = np.full((5, 4, 3), 243, np.uint8)
    assert pixels_digest(blank, well, (64, 80)) is None
    blank[0] = 0
    assert pixels_digest(blank, torn, (64, 80)) is None
    assert pixels_digest(blank, ~well, (64, 80)) is None


def other_description(folder: Path) -> tuple[str, str]:
    """A copy without the name of its owner: OpenSlide's quickhash covers the description."""
    sf.make_slide(folder / "a.svs", width=640, height=512, mpp=0.5, downsamples=(1,), tile=64, seed=1)
    put(folder / "b.svs", (folder / "a.svs").read_bytes().replace(b"G2L test slide", b"G2L anon slide"))
    return "a.svs", "b.svs"


def no_quickhash(folder: Path) -> tuple[str, str]:
    """Slides whose smallest level is too large for a quickhash, and another last byte."""
    size = {"width": 1600, "height": 1280}
    sf.make_slide(folder / "a.svs", **size, mpp=0.5, downsamples=(1,), compression="none", seed=2)
    put(folder / "b.svs", (folder / "a.svs").read_bytes() + b"\0")
    return "a.svs", "b.svs"


def other_format(folder: Path) -> tuple[str, str]:
    """One picture as Aperio's file and as a plain TIFF."""
    for name, vendor in (("a.svs", "aperio"), ("b.tif", "generic-tiff")):
        sf.make_slide(folder / name, width=640, height=512, mpp=0.5, downsamples=(1,), tile=64, seed=1, vendor=vendor)
    return "a.svs", "b.tif"


@pytest.mark.slow
@pytest.mark.parametrize("make_pair", [other_description, no_quickhash, other_format])
@pytest.mark.parametrize("case", ["k", "l"])
def test_plan_tells_one_slide_by_its_pixels(
    tmp_path: Path, make_pair: Callable[[Path], tuple[str, str]], case: str
) -> None:
    """Trained on and held out at once: refused. Of one case: said. Nothing of it is kept in the plan."""
    one, other = make_pair(tmp_path)
    table, out, audit = tmp_path / "m.csv", tmp_path / "p.h5", tmp_path / "p.audit.csv"
    split = "train" if case == "k" else "val"
    table.write_text(f"slide_id,path,case_id,split\nfirst,{one},k,train\nsecond,{other},{case},{split}\n")
    options = ("--patch-px", 64, "--min-tissue", 0, "--patches-per-slide", 6, "--workers", 2)
    code, said, err = call_g2l("plan", table, "--out", out, *options)
    if case == "l":
        assert (code, out.exists()) == (1, False)
        assert "one slide has several cases on lines 2, 3: 'first' (" in err
        assert "and 'second' (" in err
        assert "are one by the pixels of their tissue thumbnails" in err
    else:
        assert code == 0, err
    for text in (audit.read_text(), *([] if case == "l" else [said])):
        for name in ("first", "second"):
            assert text.count(f"the same slide as '{name}', by the pixels of their tissue thumbnails") == 1


def test_blank_slides_are_not_one_slide(tmp_path: Path) -> None:
    for name in ("a.tif", "b.tif"):
        tifffile.imwrite(
            tmp_path / name,
            np.full((512, 640, 3), 243, np.uint8),
            tile=(64, 64),
            photometric="rgb",
            description=f"scan {name}",
            metadata=None,
            resolution=(20_000, 20_000),
            resolutionunit="CENTIMETER",
        )
    table = tmp_path / "m.csv"
    table.write_text("slide_id,path,case_id\na,a.tif,k\nb,b.tif,l\n")
    code, said, err = call_g2l("plan", table, "--out", tmp_path / "p.h5", "--patch-px", 64, "--min-tissue", 0)
    assert (code, "the same slide" in said) == (0, False), err


@pytest.mark.slow
@pytest.mark.parametrize("case", ["k", "l", ""])
def test_plan_tells_a_slide_whose_copy_has_another_byte(tmp_path: Path, case: str) -> None:
    """Under another case it could be trained on and held out at once: refused. Of one case: said."""
    write_cohort(tmp_path, 2, downsamples=(1, 4))
    put(tmp_path / "near.svs", (tmp_path / "s0.svs").read_bytes() + b"\0")
    table, out, audit = tmp_path / "m.csv", tmp_path / "p.h5", tmp_path / "p.audit.csv"
    table.write_text(f"slide_id,path,case_id\na,s0.svs,k\nb,s1.svs,m\nc,near.svs,{case}\n")
    code, said, err = call_g2l("plan", table, "--out", out, "--patch-px", 64, "--min-tissue", 0)
    refused = case != "k"
    assert (code, out.exists(), "one slide has several cases on lines 2, 4: 'a' (" in err) == (
        refused,
        not refused,
        refused,
    )
    for text in (audit.read_text(), *([] if refused else [said])):
        assert text.count("the same slide as 'c', by OpenSlide's quickhash") == 1
        assert text.count("the same slide as 'a', by OpenSlide's quickhash") == 1


def test_make_manifest_lists_each_slide_once_and_says_what_it_passed_over(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    write_cohort(slides)
    (slides / "manifest.csv").unlink()
    (slides / "0 link.svs").symlink_to("s0.svs")
    os.link(slides / "s0.svs", slides / "zz hard.svs")
    put(slides / "backup" / "old.svs", (slides / "s1.svs").read_bytes())
    put(tmp_path / "far.svs", b"elsewhere")
    (slides / "far link.svs").symlink_to(tmp_path / "far.svs")
    (slides / "folder").symlink_to(slides / "backup")
    code, out, _ = call_g2l("make-manifest", slides, "--out", tmp_path / "m.csv")
    assert code == 0
    assert [row.path for row in parse_manifest(tmp_path / "m.csv", slides).rows] == ["far link.svs", "s0.svs", "s1.svs"]
    assert "note: skipped: 2 links to listed slides: 0 link.svs (s0.svs), zz hard.svs (s0.svs)" in out
    assert "note: skipped: 1 copy of a listed slide: backup/old.svs (s1.svs)" in out
    assert "1 link to folders" in out
    assert [row.path for row in list_folder(slides).rows] == ["far link.svs", "backup/old.svs", "s0.svs", "s1.svs"]


def test_embed_does_not_embed_a_link_again(tmp_path: Path) -> None:
    cohort = tmp_path / "slides"
    write_cohort(cohort, num_slides=1)
    (cohort / "link.svs").symlink_to("s0.svs")
    code, _, err = call_g2l(
        "embed",
        "tiny=test_resnet@scratch",
        cohort,
        "--out",
        tmp_path / "out",
        "--layout",
        "stamp",
        "--mpp",
        0.5,
        "--patch-px",
        64,
        "--device",
        "cpu",
    )
    assert code == 0, err
    assert [path.name for path in (tmp_path / "out").rglob("*.h5")] == ["s0.h5"]
    assert "skipped: 1 link to a listed slide: link.svs (s0.svs)" in err


def test_files_of_one_series_are_one_slide(tmp_path: Path) -> None:
    files = write_slide(tmp_path, "a", RGB, "1.2.3.4")
    table = tmp_path / "m.csv"
    table.write_text(f"slide_id,path\na,{files[1].name}\nb,{files[2].name}\n")
    with pytest.raises(ManifestError, match=r"'a' .* and 'b' .* are copies, or files of one DICOM series"):
        read_manifest(table)
