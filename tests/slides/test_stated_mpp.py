"""What a slide's fields say of its resolution beside OpenSlide's mpp; `test_info` has what follows from it."""

from pathlib import Path

import pytest
import support.slides as sf
import tifffile

from pipeline.base.errors import SlideError
from pipeline.slides.reader import Slide
from pipeline.slides.stated_mpp import DICOM_MM, PHILIPS_MM, stated_mpps


@pytest.mark.parametrize(
    ("properties", "expected"),
    [
        ({}, {}),
        ({"aperio.MPP": "0.2525"}, {"aperio.MPP": (0.2525, 0.2525)}),
        ({"ventana.ScanRes": "0.465"}, {"ventana.ScanRes": (0.465, 0.465)}),
        ({PHILIPS_MM: '"0.00025" "0.00026"'}, {PHILIPS_MM: (0.26, 0.25)}),  # y first
        ({f"{DICOM_MM}[0]": "0.00025", f"{DICOM_MM}[1]": "0.00026"}, {"dicom PixelSpacing": (0.26, 0.25)}),
        (
            {"tiff.XResolution": "40000", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter"},
            {"tiff.XResolution": (0.25, 0.5)},
        ),
        (
            {"tiff.XResolution": "50800", "tiff.YResolution": "50800", "tiff.ResolutionUnit": "inch"},
            {"tiff.XResolution": (0.5, 0.5)},
        ),
        ({"openslide.mpp-x": "0.25"}, {"openslide.mpp-x": (0.25, 0.25)}),
        ({"openslide.mpp-y": "0.25"}, {"openslide.mpp-y": (0.25, 0.25)}),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "inf"}, {"openslide.mpp-x": (0.25, 0.25)}),
        ({"openslide.mpp-x": "0.25", "aperio.MPP": "0.25"}, {"aperio.MPP": (0.25, 0.25)}),
        ({"openslide.mpp-x": "0.25", "aperio.MPP": "0.5"}, {"aperio.MPP": (0.5, 0.5), "openslide.mpp-x": (0.25, 0.25)}),
        (
            {"tiff.XResolution": "20000", "tiff.YResolution": "0", "tiff.ResolutionUnit": "centimeter"},
            {"tiff.XResolution": (0.5, 0.5)},
        ),
        (
            {"tiff.XResolution": "72", "tiff.YResolution": "20000", "tiff.ResolutionUnit": "centimeter"},
            {"tiff.YResolution": (0.5, 0.5)},
        ),
        ({"tiff.XResolution": "40000", "tiff.ResolutionUnit": "centimeter"}, {"tiff.XResolution": (0.25, 0.25)}),
        ({PHILIPS_MM: '"0.00025"'}, {PHILIPS_MM: (0.25, 0.25)}),
        ({PHILIPS_MM: '"0.00025" "0"'}, {PHILIPS_MM: (0.25, 0.25)}),
        ({f"{DICOM_MM}[0]": "0.00025"}, {"dicom PixelSpacing": (0.25, 0.25)}),
        ({f"{DICOM_MM}[0]": "0", f"{DICOM_MM}[1]": "0.00025"}, {"dicom PixelSpacing": (0.25, 0.25)}),
    ],
)
def test_each_field_in_its_unit(properties: dict[str, str], expected: dict[str, tuple[float, float]]) -> None:
    found = stated_mpps(properties)
    assert found.keys() == expected.keys()
    for name, mpp in expected.items():
        assert found[name] == pytest.approx(mpp)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ('PhysicalSizeX="0.25" PhysicalSizeY="0.26"', (0.25, 0.26)),  # um, if it does not say
        ('PhysicalSizeX="250" PhysicalSizeXUnit="nm" PhysicalSizeY="0.00025" PhysicalSizeYUnit="mm"', (0.25, 0.25)),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="µm"', (0.25, 0.25)),
        ('PhysicalSizeX="0.25" PhysicalSizeXUnit="pixel" PhysicalSizeY="0.25" PhysicalSizeYUnit="pixel"', None),
        ('PhysicalSizeX="1000"', None),
        ('PhysicalSizeX="wide"', None),
        ('PhysicalSizeX="0.25', None),
        ("", None),
    ],
)
def test_what_an_ome_tiff_says_in_its_xml(attributes: str, expected: tuple[float, float] | None) -> None:
    """Of its first image, whatever the name space."""
    pixels = f'<Image><Pixels SizeX="9" {attributes}/></Image><Image><Pixels PhysicalSizeX="4"/></Image>'
    text = f'<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/x">{pixels}</OME>'
    found = stated_mpps({"tiff.ImageDescription": text})
    assert found == ({} if expected is None else {"PhysicalSizeX (OME-XML)": pytest.approx(expected)})


@pytest.mark.parametrize("text", ["scanned at PhysicalSizeX 0.25", "<!DOCTYPE a><OME PhysicalSizeX='0.25'/>"])
def test_a_description_that_is_no_xml_states_nothing(text: str) -> None:
    assert stated_mpps({"tiff.ImageDescription": text}) == {}


def test_an_ome_tiff_without_mpp_tells_what_its_xml_says(tmp_path: Path) -> None:
    """Its tags say nothing, or something else."""
    path, options = tmp_path / "a.ome.tif", {"tile": (64, 64), "photometric": "rgb"}
    sizes = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    tifffile.imwrite(path, sf.make_pixels("blank", 128, 128), metadata=sizes, ome=True, **options)
    with pytest.raises(
        SlideError, match=r"it has no mpp \(um/px\), though its field PhysicalSizeX \(OME-XML\) says 0\.25 um/px\. G"
    ):
        Slide(path)
    assert Slide(path, 0.25).info.warnings == ()
    tags = {"resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, sf.make_pixels("blank", 128, 128), metadata=sizes, ome=True, **options, **tags)
    assert Slide(path).info.warnings == (
        "the slide's field PhysicalSizeX (OME-XML) says 0.25 um/px, but 0.5 is used. Is it right?",
    )


@pytest.mark.parametrize(
    "properties",
    [
        {"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"},
        {"tiff.XResolution": "1", "tiff.YResolution": "1", "tiff.ResolutionUnit": "none"},
        {"tiff.XResolution": "0", "tiff.YResolution": "0", "tiff.ResolutionUnit": "inch"},
        {"aperio.MPP": "unknown"},
        {"aperio.MPP": "nan"},
        {"aperio.MPP": "inf"},
        {PHILIPS_MM: '"a" "b"'},
        {"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.25"},
        {"hamamatsu.XResolution": "40000"},
    ],
)
def test_what_states_nothing(properties: dict[str, str]) -> None:
    assert stated_mpps(properties) == {}


def test_a_resolution_along_one_axis_contradicts_the_manifest_once(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "a.tif",
        sf.make_pixels("tissue", 640, 512),
        tile=(64, 64),
        photometric="rgb",
        metadata=None,
        resolution=(20_000, 0),
        resolutionunit="CENTIMETER",
    )
    (warning,) = Slide(tmp_path / "a.tif", 1.0).info.warnings
    assert warning == "the slide's field tiff.XResolution says 0.5 um/px, but 1 is used. Is it right?"
    assert Slide(tmp_path / "a.tif", 0.5).info.warnings == ()


@pytest.mark.parametrize("vendor", ["aperio", "generic-tiff"])
def test_slides_that_do_not_contradict_themselves(tmp_path: Path, vendor: str) -> None:
    path = sf.make_slide(tmp_path / "a.tif", width=600, height=400, mpp=0.5, vendor=vendor)
    assert Slide(path).info.warnings == ()
