"""Annotations from files: by content, packed or not, damaged or hostile."""

import gzip
import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, PngImagePlugin

from pipeline.base.errors import AnnotationError
from pipeline.config.groups import AnnotationOrigin
from pipeline.slides.annotations import read
from pipeline.slides.annotations.read import read_annotations, require_named
from pipeline.slides.annotations.regions import Annotations

RING = [[10, 10], [90, 10], [90, 90], [10, 90], [10, 10]]
FEATURE = {
    "type": "Feature",
    "geometry": {"type": "Polygon", "coordinates": [RING]},
    "properties": {"objectType": "annotation", "classification": {"name": "Tumör"}},
}
TEXT = json.dumps({"type": "FeatureCollection", "features": [FEATURE]}, ensure_ascii=False).encode()
XML = (
    b"<ASAP_Annotations><Annotations><Annotation Type='Polygon' PartOfGroup='Tum\xc3\xb6r'><Coordinates>"
    + b"".join(f"<Coordinate X='{x}' Y='{y}'/>".encode() for x, y in RING[:4])
    + b"</Coordinates></Annotation></Annotations></ASAP_Annotations>"
)


def mask_file(kind: str) -> bytes:
    values, buffer = np.eye(50, dtype=np.uint8), io.BytesIO()
    if kind == "PNG":
        Image.fromarray(values).save(buffer, "PNG")
    else:
        tifffile.imwrite(buffer, values, compression="zlib")
    return buffer.getvalue()


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def of(path: Path, data: bytes) -> Annotations:
    path.write_bytes(data)
    return read_annotations(path, size_l0_px=(100, 100), mpp=1.0, slide_names={"slide-1"})


@pytest.mark.parametrize(
    "data",
    [
        TEXT,
        b"\xef\xbb\xbf" + TEXT,
        TEXT.decode().encode("utf-16"),
        b"\r\n  " + TEXT.replace(b", ", b",\r\n"),
        gzip.compress(TEXT),
        zipped(**{"a.geojson": TEXT, "__MACOSX/._a.geojson": b"x", "b/": b""}),
        XML,
        b"\xef\xbb\xbf" + XML,
        XML.decode().encode("utf-16"),
    ],
    ids=["json", "bom", "utf-16", "crlf", "gzip", "zip", "xml", "xml with bom", "xml in utf-16"],
)
def test_the_content_decides_and_not_the_name(tmp_path: Path, data: bytes) -> None:
    assert of(tmp_path / "annotations.txt", data).areas_um2 == {"Tumör": 6400.0}


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_mask_is_read(tmp_path: Path, kind: str) -> None:
    found = of(tmp_path / "m", mask_file(kind))
    assert (found.areas_um2, len(found.notes)) == ({"1": 200.0}, 1)


SCANNED = (300, 300, 150, 100)
"""The scanned area of a slide of 1000 x 800 pixels."""


def at(path: Path, data: bytes, origin: AnnotationOrigin = "auto") -> Annotations:
    path.write_bytes(data)
    names = {"slide-1", "slide-1.svs"}
    return read_annotations(
        path, size_l0_px=(1000, 800), mpp=1.0, slide_names=names, scanned_l0_px=SCANNED, origin=origin
    )


PLAIN = TEXT.replace(b'"objectType": "annotation", ', b"")
"""As TRIDENT and other programs write GeoJSON, without a kind of object."""
OF_A_TYPE = TEXT.replace(b"objectType", b"type", 1)
"""With QuPath's kind of object under the name that it reads as well."""


def moved(data: bytes) -> bytes:
    """The file's square of (10, 10) to (90, 90), 300 pixels further."""
    return data.replace(b"10", b"310").replace(b"90", b"390")


@pytest.mark.parametrize(
    ("data", "origin", "counts_from_slide"),
    [
        (TEXT, "auto", False),
        (TEXT, "scan", False),
        (TEXT, "slide", True),
        (OF_A_TYPE, "auto", False),
        (PLAIN, "auto", True),
        (PLAIN, "scan", False),
        (XML, "auto", True),
        (XML, "scan", False),
    ],
    ids=["qupath", "qupath, scan", "qupath, not cropped", "type", "plain", "plain, scan", "asap", "asap, scan"],
)
def test_coordinates_count_from_the_corner_that_the_program_counts_from(
    tmp_path: Path, data: bytes, origin: AnnotationOrigin, counts_from_slide: bool
) -> None:
    found = at(tmp_path / "a", moved(data) if counts_from_slide else data, origin)
    assert found.fractions(["Tumör"], np.array([(310, 310), (10, 10)]), 80.0).tolist() == [[1.0], [0.0]]
    is_noted = data in (TEXT, OF_A_TYPE) and origin == "auto"
    assert any("count from the corner" in note for note in found.notes) == is_noted


def test_regions_that_lie_partly_where_nothing_was_scanned_are_noted(tmp_path: Path) -> None:
    found = at(tmp_path / "a", moved(PLAIN).replace(b"390", b"420"))
    assert found.areas_um2["Tumör"] == 110.0**2
    share = 1 - 90 / 110
    assert f"class Tumör: {share:.1%} of its area lies where the slide was not scanned, or they" in found.notes[-1]


@pytest.mark.parametrize(
    ("data", "origin", "words"),
    [
        (
            moved(TEXT),
            "auto",
            r"100% of its regions' area lies beyond the scanned area of slide slide-1, which has 150 x 100 pixels: "
            r"they reach from \(310, 310\) to \(390, 390\)\. .* the slide's corner \(--annotation-origin slide\)",
        ),
        (
            PLAIN,
            "auto",
            r"the scanned area of slide slide-1, which has 150 x 100 pixels from \(300, 300\): they reach from "
            r"\(10, 10\) to \(90, 90\)\. .* corner of its scanned area \(--annotation-origin scan\)",
        ),
    ],
)
def test_what_lies_beyond_the_scanned_area_is_refused_with_the_option_that_may_be_meant(
    tmp_path: Path, data: bytes, origin: AnnotationOrigin, words: str
) -> None:
    with pytest.raises(AnnotationError, match=words):
        at(tmp_path / "a", data, origin)


def test_a_mask_may_be_of_the_scanned_area(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    values = np.zeros((100, 150), np.uint8)
    values[50:, 75:] = 7
    Image.fromarray(values).save(buffer, "PNG")
    places = np.array([(300, 300), (375, 350), (365, 350), (0, 0)])
    told, seen = at(tmp_path / "a", buffer.getvalue(), "scan"), at(tmp_path / "a", buffer.getvalue())
    for found in (told, seen):
        assert found.fractions(["7"], places, 20.0)[:, 0].tolist() == [0.0, 1.0, 0.5, 0.0]
    assert not any("as large as the scanned part" in note for note in told.notes)
    assert "as large as the scanned part of the slide" in seen.notes[0]
    with pytest.raises(AnnotationError, match="the two sides give different scales"):
        at(tmp_path / "a", buffer.getvalue(), "slide")


@pytest.mark.parametrize("origin", ["auto", "slide"])
def test_a_mask_of_the_whole_slide_is_of_the_whole_slide(tmp_path: Path, origin: AnnotationOrigin) -> None:
    """Also where it says no scale, and the scanned part has the same ratio of sides: that is noted."""
    buffer = io.BytesIO()
    values = np.zeros((80, 100), np.uint8)
    values[30:40, 30:45] = 7
    Image.fromarray(values).save(buffer, "PNG")
    found = at(tmp_path / "a", buffer.getvalue(), origin)
    assert found.fractions(["7"], np.array([(300, 300), (0, 0)]), 100.0)[:, 0].tolist() == [1.0, 0.0]


def test_a_mask_of_neither_is_refused_with_the_option(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.eye(90, 30, dtype=np.uint8)).save(buffer, "PNG")
    with pytest.raises(AnnotationError, match=r"different scales.*\(--annotation-origin scan\)"):
        at(tmp_path / "a", buffer.getvalue())


def test_a_file_without_regions_has_no_classes(tmp_path: Path) -> None:
    found = of(tmp_path / "none.geojson", b'{"type": "FeatureCollection", "features": []}')
    assert found.classes == ()
    assert found.fraction_in_any(["a"], np.array([[0, 0]]), 10.0).tolist() == [0.0]


@pytest.mark.parametrize("name", ["slide-1", "C:\\\\scans\\\\SLIDE-1.svs", "/x/slide-1.svs - Series 1", "slide-1.ndpi"])
def test_the_slide_may_be_named(tmp_path: Path, name: str) -> None:
    assert of(tmp_path / "a", TEXT.replace(b'"objectType"', f'"image": "{name}", "objectType"'.encode())).classes


@pytest.mark.parametrize("name", ["slide-10.svs", "slide-1-b.svs", "other"])
def test_another_slide_is_refused_and_both_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(AnnotationError, match=f"says that it is of {name}, not of slide slide-1"):
        of(tmp_path / "a", TEXT.replace(b'"objectType"', f'"image": "{name}", "objectType"'.encode()))


@pytest.mark.parametrize(
    ("names", "image", "is_it"),
    [
        (("12.1",), "12.1.svs", True),
        (("12.1",), "12.1", True),
        (("12.1",), "12.2.svs", False),
        (("12.1",), "12.2", False),
        (("S.A", "scan"), "S.B.svs", False),
        (("S.A", "scan"), "scan.ndpi - Series 0", True),
        (("a.ome",), "a.ome.tiff", True),
        (("a.ome",), "a", True),
        (("Tum\u00f6r",), "Tumo\u0308r.svs", True),
    ],
)
def test_a_point_within_a_name_begins_no_ending(names: tuple[str, ...], image: str, is_it: bool) -> None:
    """Blocks are called 12.1 and 12.2; the second's annotations were taken for the first's."""
    if is_it:
        require_named([image], names, "f")
    else:
        with pytest.raises(AnnotationError, match=f"says that it is of {image}, not of slide"):
            require_named([image], names, "f")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Known are GeoJSON"),
        (b"name,x,y\n", "Known are GeoJSON"),
        (b"{", "not readable as annotations"),
        (b"", r"not readable as annotations \(it is empty\)\. Known are GeoJSON"),
        (
            b"\x89HDF\r\n\x1a\n",
            r"not readable as annotations \(it is not UTF-8 text from byte 1 on\)\. Known are GeoJSON",
        ),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"type": "FeatureCollection"}', "no GeoJSON feature"),
        (b"<a/>", "begins with <a>"),
        (b"<Annotations><Anno", r"it is not XML from line 1, column 14 on: unclosed token"),
        (XML.replace(b"'10'", b"'1,5'"), "a point of region 1 has a coordinate that is no number"),
        (TEXT.replace(b"90", b'"x"'), "the coordinates of feature 1 are no lists of points of two numbers"),
        (b"II*\0\x08\0\0\0", r"not readable as annotations \(damaged or cut off: \w+Error \d+\)"),
        (TEXT.replace(b"90", b"NaN"), "region 1 has a coordinate"),
        (TEXT.replace(b"90", b"1e308"), "region 1 has a coordinate"),
        (TEXT.replace(b"90", b"1e999"), "region 1 has a coordinate"),
        (TEXT.replace(b"10", b"500").replace(b"90", b"900"), "100% of its regions' area lies beyond slide slide-1"),
        (gzip.compress(TEXT)[:-12], "not readable"),
        (zipped(a=TEXT, b=TEXT), "holds 2 files, not one: a, b"),
        (zipped(**{"b/": b""}), "an empty archive"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "not readable"),
        (b"II*\0" + b"\xff" * 40, "not readable"),
        (TEXT.decode().encode("latin-1"), "not readable"),
    ],
)
def test_what_is_unsound_is_an_error_that_names_the_file(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(AnnotationError, match=words) as caught:
        of(tmp_path / "odd.geojson", data)
    assert str(tmp_path / "odd.geojson") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "MOST_TEXT_BYTES", 10_000)
    for data in (gzip.compress(b" " * 100_000), zipped(a=b" " * 100_000)):
        with pytest.raises(AnnotationError, match="unpacked more than"):
            of(tmp_path / "bomb", data)


def test_a_pipe_a_folder_and_a_missing_file_are_refused_and_a_link_is_followed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    pipe, directory, absent = "a pipe or device, not a file", "Is a directory", "No such file or directory"
    for path, words in ((tmp_path / "pipe", pipe), (tmp_path, directory), (tmp_path / "absent", absent)):
        with pytest.raises(AnnotationError, match=rf"^{path}: cannot be read \({words}\)$"):
            read_annotations(path, size_l0_px=(100, 100), mpp=1.0, slide_names=())
    of(tmp_path / "a", TEXT)
    (tmp_path / "link").symlink_to("a")
    assert read_annotations(tmp_path / "link", size_l0_px=(100, 100), mpp=1.0, slide_names=()).classes == ("Tumör",)


@pytest.mark.parametrize(
    "data",
    [TEXT, XML, mask_file("PNG"), mask_file("TIFF"), zipped(a=TEXT), gzip.compress(TEXT)],
    ids=["json", "xml", "png", "tiff", "zip", "gzip"],
)
def test_damage_anywhere_is_an_annotation_error_or_none(tmp_path: Path, data: bytes) -> None:
    rng = np.random.default_rng(0)
    num_refused = 0
    for number in range(80):
        damaged = bytearray(data[: rng.integers(1, len(data))] if number % 5 == 0 else data)
        for place in rng.integers(0, len(damaged), rng.integers(1, 4)):
            damaged[place] = rng.integers(0, 256)
        try:
            of(tmp_path / "damaged", bytes(damaged)).fractions(["1", "Tumör"], np.array([[0, 0], [20, 30]]), 30.0)
        except AnnotationError:
            num_refused += 1
    assert num_refused > 15


COMPOSED = "Tum\u00f6r"
DECOMPOSED = "Tumo\u0308r \u00a0"
"""The class of `TEXT`, and in another spelling."""


def layer(name: str) -> str:
    points = "".join(f"<Vertex X='{x}' Y='{y}'/>" for x, y in RING[:4])
    return f"<Annotation Name='{name}'><Regions><Region><Vertices>{points}</Vertices></Region></Regions></Annotation>"


def named_mask(kind: str) -> bytes:
    """A mask of two values, which have one class in two spellings."""
    values, buffer = np.zeros((50, 50), np.uint8), io.BytesIO()
    values[5:25, 5:45], values[25:45, 5:45] = 1, 2
    names = {"1": COMPOSED, "2": DECOMPOSED}
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        info.add_text("classes", json.dumps(names))
        Image.fromarray(values).save(buffer, "PNG", pnginfo=info)
    else:
        tifffile.imwrite(buffer, values, metadata={"classes": names})
    return buffer.getvalue()


OTHER = json.loads(json.dumps(FEATURE, ensure_ascii=False).replace(COMPOSED, DECOMPOSED))
ASAP_END = b"</Annotations></ASAP_Annotations>"
ASAP_OTHER = XML.replace(COMPOSED.encode(), DECOMPOSED.encode()).partition(b"<Annotations>")[2]


@pytest.mark.parametrize(
    "data",
    [
        json.dumps({"type": "FeatureCollection", "features": [FEATURE, OTHER]}).encode(),
        XML.removesuffix(ASAP_END) + ASAP_OTHER,
        f"<Annotations>{layer(COMPOSED)}{layer(DECOMPOSED)}</Annotations>".encode(),
        named_mask("PNG"),
        named_mask("TIFF"),
    ],
    ids=["geojson", "asap", "layers", "png", "tiff"],
)
def test_two_spellings_of_a_class_are_one_with_a_note(tmp_path: Path, data: bytes) -> None:
    found = of(tmp_path / "a", data)
    assert found.areas_um2 == {COMPOSED: 6400.0}
    assert found.spellings == {COMPOSED: (COMPOSED, DECOMPOSED)}
    (note,) = (note for note in found.notes if "spelled" in note)
    assert note.endswith(r"2 ways, taken as one: 'Tum\xf6r', 'Tumo\u0308r \xa0'")


def test_a_mask_of_the_whole_slide_that_is_said_to_be_of_the_scanned_part_names_the_way_out(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((80, 100), np.uint8)).save(buffer, "PNG")
    words = r"slide slide-1's scanned part has 150 x 100.* or it is of the whole slide \(--annotation-origin slide\)$"
    with pytest.raises(AnnotationError, match=words):
        at(tmp_path / "a", buffer.getvalue(), "scan")


def test_a_mask_of_the_scanned_part_that_is_said_to_be_of_the_slide_names_the_way_out(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.ones((100, 150), np.uint8)).save(buffer, "PNG")
    with pytest.raises(
        AnnotationError, match=r"or it is of the scanned part of the slide \(--annotation-origin scan\)$"
    ):
        at(tmp_path / "a", buffer.getvalue(), "slide")
