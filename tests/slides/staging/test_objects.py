"""Objects of a slide, and their copies: whole and checked, or the slide fails by name. The bucket is a folder here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support.dicom import RGB, write_slide
from support.slides import make_slide

from pipeline.base.errors import ConfigError, SlideError
from pipeline.config.staging import StageFolder
from pipeline.disk.files import sha256_file
from pipeline.disk.objects import bucket
from pipeline.disk.objects.bucket import Bucket, NoObjectError
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.objects.present import Buckets
from pipeline.slides.reader import Slide
from pipeline.slides.staging import objects
from pipeline.slides.staging.copies import ExpectedSlide
from pipeline.slides.staging.objects import copy_objects, object_parts, refuse_objects, require_stage


@pytest.fixture
def slide(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return make_slide(tmp_path / "there" / "a.svs", width=600, height=500, downsamples=(1,))


def address(path: Path) -> ObjectPath:
    return ObjectPath(f"file://{path}")


def copy(slide: Path, into: Path, sha256: str | None = None) -> Path:
    parts = object_parts(address(slide), Buckets())
    for part in parts:
        (into / part.name).parent.mkdir(parents=True, exist_ok=True)
        with open(into / part.name, "wb") as f:
            f.truncate(part.num_bytes)
    return copy_objects(parts, into, ExpectedSlide(address(slide), sha256=sha256), lambda: None)


@pytest.mark.parametrize("block_bytes", [1 << 23, 1000])
def test_a_copy_is_the_object(slide: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(bucket, "BLOCK_BYTES", block_bytes)  # many requests at once
    made = copy(slide, tmp_path / "into", sha256_file(slide).upper())
    assert (made.name, made.read_bytes()) == ("a.svs", slide.read_bytes())


def test_an_mrxs_has_the_objects_below_its_folder(tmp_path: Path) -> None:
    for name in ("a.mrxs", "a/Slidedat.ini", "a/Data1.dat", "ab/other.dat", "b.mrxs"):
        (tmp_path / "there" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "there" / name).write_text(name)
    made = copy(tmp_path / "there" / "a.mrxs", tmp_path / "into")
    found = {str(p.relative_to(made.parent)): p.read_text() for p in made.parent.rglob("*") if p.is_file()}
    assert found == {name: name for name in ("a.mrxs", "a/Slidedat.ini", "a/Data1.dat")}


def test_formats_of_files_that_are_not_told_by_names_are_refused_with_what_to_do(tmp_path: Path) -> None:
    dicom = write_slide(tmp_path / "s", "a", RGB, "1.2.3")[0]
    dicom.rename(tmp_path / "s" / "dicom.tiff")
    (tmp_path / "s" / "x.dcm").touch()
    (tmp_path / "s" / "x.vms").touch()
    for name, words in (("dicom.tiff", "Call them .dcm"), ("x.dcm", "which series. Mount"), ("x.vms", "Mount the")):
        with pytest.raises(SlideError, match=rf"{name}: .*several files.* {words}"):
            copy(tmp_path / "s" / name, tmp_path / "into")


def test_a_dicom_slide_has_the_objects_of_its_series_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    own = write_slide(there, "a", RGB, "1.2.3")
    write_slide(there, "b", RGB, "1.2.4")
    write_slide(there / "deeper", "c", RGB, "1.2.3")
    (there / "notes.txt").write_text("no DICOM")
    (there / "empty").touch()
    made = copy(own[1], tmp_path / "into", sha256_file(own[1]))
    assert made.name == "a-2.dcm"
    found = {p.relative_to(made.parent).as_posix(): p.read_bytes() for p in made.parent.rglob("*") if p.is_file()}
    assert found == {path.name: path.read_bytes() for path in own}
    assert Slide(made).identity() == Slide(own[1]).identity()
    monkeypatch.setattr(objects, "MOST_IN_FOLDER", 8)
    with pytest.raises(SlideError, match=r"a-2\.dcm: its folder has 10 objects, .* a folder of its own"):
        copy(own[1], tmp_path / "into")


def test_another_hash_than_the_manifests_and_an_object_that_is_gone_are_named(slide: Path, tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"file://.*/a\.svs: its SHA-256 is not the manifest's"):
        copy(slide, tmp_path / "into", "0" * 64)
    with pytest.raises(NoObjectError, match=r"/b\.svs: no such object"):
        copy(slide.with_name("b.svs"), tmp_path / "into")


@pytest.mark.parametrize("times", [1, 2])
def test_a_copy_that_is_cut_short_is_made_again_once(slide: Path, tmp_path: Path, times: int) -> None:
    left, read = [times], Bucket.read

    def cut(self: Bucket, name: str, start: int, length: int) -> bytes:
        left[0] -= 1
        return read(self, name, start, length)[: -1 if left[0] >= 0 else None]

    with mock.patch.object(Bucket, "read", cut):
        if times == 1:
            assert copy(slide, tmp_path / "into").read_bytes() == slide.read_bytes()
            return
        with pytest.raises(SlideError, match=r"a\.svs cannot be copied whole: [\d,]+ of its [\d,]+ bytes came"):
            copy(slide, tmp_path / "into")


def test_a_copy_that_is_damaged_on_the_local_disk_is_refused(slide: Path, tmp_path: Path) -> None:
    def damaged(path: Path, go_on: Callable[[], object]) -> str:
        return "0" * 64

    with mock.patch.object(objects, "read_back", damaged), pytest.raises(SlideError, match="is the local disk sound"):
        copy(slide, tmp_path / "into")


def test_an_object_that_is_written_anew_meanwhile_is_refused(slide: Path, tmp_path: Path) -> None:
    fetch = Bucket.fetch

    def change(self: Bucket, *arguments: Any, **more: Any) -> str:
        digest = fetch(self, *arguments, **more)
        data = slide.read_bytes()
        slide.unlink()
        slide.write_bytes(data[::-1])
        return digest

    with mock.patch.object(Bucket, "fetch", change), pytest.raises(SlideError, match="written anew while"):
        copy(slide, tmp_path / "into")


def test_a_slide_in_a_bucket_needs_a_folder_for_its_copy(tmp_path: Path) -> None:
    places = [tmp_path / "a.svs", ObjectPath("s3://bucket/b.svs")]
    with pytest.raises(ConfigError, match=r"s3://bucket/b\.svs: .* --stage-dir"):
        require_stage(places, None)
    require_stage(places, StageFolder(tmp_path))
    require_stage(places[:1], None)
    with pytest.raises(ConfigError, match=r"s3://bucket/b\.svs: .* only, and why"):
        refuse_objects(places, "why")
    refuse_objects(places[:1], "why")
