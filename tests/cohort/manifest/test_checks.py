"""Manifests with missing files, or with one slide or file under several ids, are refused or noted."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from support.files import touch, write

from pipeline.base.errors import ManifestError
from pipeline.cohort.manifest.read import parse_manifest, read_manifest


def test_a_missing_file_of_annotations_is_refused_with_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.svs").touch()
    path = write(tmp_path, "slide_id,path,annotations\na,a.svs,a.xml\n")
    with pytest.raises(ManifestError, match=r"(?s)\.csv.*line 2: no file of annotations .*a\.xml, of the slide 'a'"):
        read_manifest(path)
    assert parse_manifest(path).rows[0].annotations == "a.xml"


@pytest.mark.parametrize("place", ["a.xml", "drawn/a.xml", "slides/a.xml"])
def test_annotations_that_lie_elsewhere_are_pointed_at(tmp_path: Path, place: str) -> None:
    """Below the manifest, where paths start from the slides' folder; or beside the slide."""
    for folder in ("slides", "drawn"):
        (tmp_path / folder).mkdir()
    (tmp_path / "slides" / "a.svs").touch()
    named = "drawn/a.xml" if place == "drawn/a.xml" else "b/a.xml"
    path = write(tmp_path, f"slide_id,path,annotations\na,a.svs,{named}\n")
    (tmp_path / place).touch()
    with pytest.raises(ManifestError, match=rf"there is one at {tmp_path / place}: write that path"):
        read_manifest(path, tmp_path / "slides")
    (tmp_path / place).unlink()
    with pytest.raises(ManifestError, match=r"of the slide 'a'\n"):
        read_manifest(path, tmp_path / "slides")


def test_read_needs_the_files(tmp_path: Path) -> None:
    slides = tmp_path / "slides"
    touch(slides, "a.svs")
    path = write(tmp_path, "slide_id,path\nb,b.svs\na,a.svs\nc,\n")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path, slides)
    message = str(caught.value)
    assert f"line 2: no slide file {slides}/b.svs" in message
    assert "line 4: path is empty" in message  # with all other problems, and not missing as well
    assert message.count("no slide file") == 1
    assert message.endswith(f"Relative paths start from {slides}; --slides-root sets another folder.")
    path = write(tmp_path, "slide_id,path\na,a.svs\n")
    assert read_manifest(path, slides) == parse_manifest(path, slides)
    with pytest.raises(ManifestError, match="nowhere is not a folder"):
        read_manifest(path, tmp_path / "nowhere")


def test_a_folder_is_no_slide_file(tmp_path: Path) -> None:
    (tmp_path / "a.svs").mkdir()
    with pytest.raises(ManifestError, match=r"line 2: .*/a\.svs: it is a folder, not a file"):
        read_manifest(write(tmp_path, "slide_id,path\na,a.svs\n"))


def test_an_address_with_a_password_is_refused_and_not_shown(tmp_path: Path) -> None:
    path = write(tmp_path, "slide_id,path\na,s3://me:hidden@bucket/a.svs\n")
    for read in (parse_manifest, read_manifest):
        with pytest.raises(
            ManifestError, match=r"line 2: path s3://bucket/a\.svs: .* Give the plain address"
        ) as caught:
            read(path)
        assert "hidden" not in str(caught.value)
        assert "no slide file" not in str(caught.value)


def test_slides_in_a_bucket_are_looked_for_there(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"abc")
    (tmp_path / "x.geojson").write_text("{}")
    url = f"file://{tmp_path}"
    path = write(tmp_path, f"slide_id,path\na,{url}/a.svs\nb,{url}/b.svs\nc,{url}/a.svs\n")
    with pytest.raises(ManifestError) as caught:
        read_manifest(path)
    assert f"line 3: {url}/b.svs: no such object" in str(caught.value)
    assert f"the file {url}/a.svs has several ids on lines 2, 4" in str(caught.value)
    path.write_text("slide_id,path,annotations\na,a.svs,x.geojson\n")
    with pytest.raises(ManifestError, match=r"line 2: annotations file://.*x\.geojson are not read from a bucket"):
        read_manifest(path, Path(url))
    path.write_text(f"slide_id,path,annotations\na,a.svs,{tmp_path / 'x.geojson'}\n")
    manifest = read_manifest(path, Path(url))
    assert str(manifest.slide_path(manifest.rows[0])) == f"{url}/a.svs"


def test_links_to_one_file_are_one_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.svs")
    (tmp_path / "b.svs").symlink_to("a.svs")
    with pytest.raises(ManifestError, match="has several ids on lines 2, 3"):
        parse_manifest(write(tmp_path, "slide_id,path\na,a.svs\nb,b.svs\n"))


@pytest.mark.timeout(20)  # a pipe would be waited for without end
def test_what_stands_for_a_file_of_annotations_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.svs").write_bytes(b"x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("gone")
    words = {
        "folder": "it is a folder, not a file",
        "pipe": "it is a pipe or device, not a file",
        "link": "a link to .*gone, which is not there",
    }
    for name, why in words.items():
        path = write(tmp_path, f"slide_id,path,annotations\na,a.svs,{name}\n")
        with pytest.raises(ManifestError, match=rf"line 2: annotations .*/{name} of the slide 'a': {why}\n"):
            read_manifest(path)


def test_annotations_in_a_folder_that_may_not_be_entered_are_not_called_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for the system's answer: whoever may read everything gets no other."""
    (tmp_path / "a.svs").write_bytes(b"x")
    locked, stat = tmp_path / "locked" / "a.geojson", os.stat

    def refusing(path: Any, *args: Any, **options: Any) -> os.stat_result:
        if str(path) == str(locked):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return stat(path, *args, **options)

    monkeypatch.setattr(os, "stat", refusing)
    path = write(tmp_path, "slide_id,path,annotations\na,a.svs,locked/a.geojson\n")
    with pytest.raises(ManifestError, match=r"annotations .*a\.geojson of the slide 'a': Permission denied\n"):
        read_manifest(path)


def test_a_file_of_annotations_of_several_slides_is_noted(tmp_path: Path) -> None:
    for name in ("a.geojson", "b.geojson"):
        (tmp_path / name).write_text(name)
    (tmp_path / "link.geojson").symlink_to("a.geojson")
    cells = ("a,a.svs,a.geojson", "b,b.svs,b.geojson", "c,c.svs,link.geojson", "d,d.svs,", "e,e.svs,")
    table = write(tmp_path, "\n".join(["slide_id,path,annotations", *cells, ""]))
    words = f"{table}: several slides have the same file of annotations: "
    assert parse_manifest(table).notes == (f"{words}a.geojson on lines 2, 4. Is it of each of them?",)
    rows = "".join(f"s{number},s{number}.svs,none.geojson\n" for number in range(9))
    table.write_text("slide_id,path,annotations\n" + rows)
    assert parse_manifest(table).notes == (
        f"{words}none.geojson on lines 2, 3, 4, 5, 6 and more. Is it of each of them?",
    )
    table.write_text("slide_id,path,annotations\na,a.svs,a.geojson\nb,b.svs,b.geojson\n")
    assert parse_manifest(table).notes == ()
