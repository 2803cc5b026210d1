"""Which slide a file is: a change of its content is seen wherever it is, and nothing passes because it is not known."""

import hashlib
import os
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import support.slides as sf
from support.czi import make_czi_slide
from support.dicom import RGB, write_slide
from support.vms import make_vms_slide

from pipeline.base.errors import SlideError
from pipeline.slides.identity import (
    BLOCK_BYTES,
    NUM_BLOCKS,
    SlideIdentity,
    check_sha256,
    identity_as_recorded,
    identity_from_record,
    parts_digest,
    read_identity,
)
from pipeline.slides.info import SlideInfo
from pipeline.slides.pool import SlidePool, accept_all, require_planned
from pipeline.slides.reader import Slide

INFO = SlideInfo("aperio", 0.5, "slide", (1000, 800), (0, 0, 1000, 800), ((1000, 800),), (1.0,), None, (255, 255, 255))


@pytest.fixture(scope="module")
def unhashed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two slides of the same size and mpp that OpenSlide gives no quickhash: their coarsest level has over 5 MiB."""
    folder = tmp_path_factory.mktemp("unhashed")
    options = {"width": 1600, "height": 1280, "mpp": 0.5, "downsamples": (1,), "compression": "none"}
    first, second = (sf.make_slide(folder / f"{seed}.svs", seed=seed, **options) for seed in (1, 2))
    return first, second


def test_slides_without_a_quickhash_are_told_apart(unhashed: tuple[Path, Path]) -> None:
    first, second = map(Slide, unhashed)
    assert first.info.quickhash is None is second.info.quickhash
    assert first.identity().changes(Slide(unhashed[0]).identity()) == []
    changes = first.identity().changes(second.identity())
    assert len(changes) == 1
    assert changes[0].startswith("sha256: ")
    geometry = first.geometry(64, 0.5)
    require_planned(first, first.identity(), geometry)
    with pytest.raises(SlideError, match=r"2\.svs: not the slide that was planned \(its content has changed: sha256: "):
        require_planned(second, first.identity(), geometry)


def test_a_record_reads_back(unhashed: tuple[Path, Path]) -> None:
    identity = Slide(unhashed[0]).identity()
    assert identity_from_record(identity.record(), identity.quickhash, identity.size_l0_px) == identity
    assert identity.is_content
    for damaged in ({}, {"level_sizes_px": 3}, identity.record() | {"more": 1}):
        with pytest.raises((KeyError, TypeError, ValueError)):
            identity_from_record(damaged, None, (1, 1))


def test_a_record_of_an_earlier_version(unhashed: tuple[Path, Path]) -> None:
    """It has no hash: size, resolution and level are what tells, and it is known that this is little."""
    slide = Slide(unhashed[0])
    old, geometry = identity_from_record(None, None, (1600, 1280)), slide.geometry(64, 0.5)
    assert not old.is_content
    require_planned(slide, old, geometry)
    for other, words in (
        (replace(old, size_l0_px=(1600, 1281)), "size_l0_px"),
        (replace(old, quickhash="ab"), "quickhash: ab -> None"),
    ):
        with pytest.raises(SlideError, match=words):
            require_planned(slide, other, geometry)
    for planned, words in (
        (replace(geometry, slide_mpp=0.25), "um/px: 0.25 -> 0.5"),
        (replace(geometry, level=1, downsample=4.0), "downsample of level 1: 4 -> None"),
    ):
        with pytest.raises(SlideError, match=words):
            require_planned(slide, old, planned)


def test_a_file_that_was_damaged_or_mended(tmp_path: Path) -> None:
    """Its quickhash, of the coarsest level, says that it is the same slide, but not that its other levels are: it is
    refused, unless the user has repaired it.
    """
    path = sf.make_slide(tmp_path / "a.svs", width=1000, height=800, mpp=0.5, downsamples=(1, 4))
    whole, bad = Slide(path), Slide(sf.damage_tiles(path, [(0, 0)]))
    assert whole.info.quickhash == bad.info.quickhash is not None
    assert whole.identity().changes(bad.identity()) == []
    geometry, told = whole.geometry(64, 0.5), list[str]()
    assert require_planned(whole, whole.identity(), geometry) == ""
    words = "a-garbage.svs: its file has changed since it was planned (sha256: "
    with pytest.raises(SlideError, match=f"{re.escape(words)}.*--retry-failures"):
        require_planned(bad, whole.identity(), geometry)
    warning = require_planned(bad, whole.identity(), geometry, accepts_changed=accept_all)
    assert words in warning
    pool = SlidePool(tell=told.append, accepts_changed=accept_all, capacity=1)
    for slide in (bad, whole, bad):  # the second time it is opened anew
        pool.open(slide.path, None, whole.identity(), geometry)
    assert told == [warning]


def test_a_slide_whose_level_0_alone_was_swapped(tmp_path: Path) -> None:
    """The same quickhash, sizes and mpp, and other pixels where the patches are."""
    options = {"width": 1000, "height": 800, "mpp": 0.5, "downsamples": (1, 4)}
    path = sf.make_slide(tmp_path / "a.svs", seed=1, **options)
    planned, geometry = Slide(path).identity(), Slide(path).geometry(64, 0.5)
    before = Slide(path).read_patch(200, 200, geometry)
    os.replace(sf.damage_tiles(path, [(x, y) for x in range(4) for y in range(4)], how="flip"), path)
    swapped = Slide(path)
    assert swapped.info.quickhash == planned.quickhash is not None
    assert (swapped.read_patch(200, 200, geometry) != before).any()
    with pytest.raises(SlideError, match="its file has changed"):
        SlidePool(tell=print).open(path, None, planned, geometry)
    SlidePool(tell=print, accepts_changed=accept_all).open(path, None, planned, geometry)
    unknown = replace(planned, sha256=None, file_bytes=None)  # a plan of an earlier version
    SlidePool(tell=print).open(path, None, unknown, geometry)


def test_every_fact_counts(unhashed: tuple[Path, Path]) -> None:
    identity = Slide(unhashed[0]).identity()
    assert identity.quickhash is None
    others = {
        "quickhash": "a",
        "size_l0_px": (1, 1),
        "file_bytes": 1,
        "level_sizes_px": ((1, 1),),
        "own_mpp": 0.4,
        "sha256": "0" * 64,
        "series_sha256": "0" * 64,
    }
    identity = replace(identity, series_sha256="1" * 64)
    assert others.keys() == asdict(identity).keys() - {"is_hash_of_pixels"}
    for name, value in others.items():
        assert [line.split(":")[0] for line in identity.changes(replace(identity, **{name: value}))] == [name]
        if name != "quickhash":
            assert identity.changes(replace(identity, **{name: None})), name  # what was known is not known any more


@pytest.mark.parametrize("size", [1000, BLOCK_BYTES * NUM_BLOCKS, BLOCK_BYTES * NUM_BLOCKS * 3 + 77])
def test_a_changed_byte_is_seen(tmp_path: Path, size: int) -> None:
    """Of a small file anywhere; of a large one in its head, its tail and each block between them."""
    path = tmp_path / "a.svs"
    path.write_bytes(os.urandom(size))
    before = read_identity(path, INFO)
    assert before.file_bytes == size
    assert read_identity(Path(shutil.copy(path, tmp_path / "b.svs")), INFO) == before  # its name does not count
    last = size - BLOCK_BYTES
    places = (
        [0, size - 1, size // 2] if size <= BLOCK_BYTES * NUM_BLOCKS else [0, size - 1, last * 7 // 31, last * 30 // 31]
    )
    for place in places:
        with open(path, "r+b") as f:
            f.seek(place)
            old = f.read(1)
            f.seek(place)
            f.write(bytes([old[0] ^ 1]))
        assert read_identity(path, INFO).sha256 != before.sha256
        with open(path, "r+b") as f:
            f.seek(place)
            f.write(old)
    with open(path, "ab") as f:
        f.write(b"\0")
    assert set(before.changes(read_identity(path, INFO))) != set()


def test_files_beside_an_mrxs_file_count(tmp_path: Path) -> None:
    (tmp_path / "a.mrxs").write_bytes(b"index")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"one")
    before = read_identity(tmp_path / "a.mrxs", INFO)
    assert before.file_bytes == 8
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"two")
    assert [c.split(":")[0] for c in before.changes(read_identity(tmp_path / "a.mrxs", INFO))] == ["sha256"]


@pytest.mark.parametrize("name", [".DS_Store", "._Data0000.dat", "Thumbs.db", "thumbs.db", "desktop.ini"])
def test_what_a_file_manager_lays_beside_an_mrxs_files_data_is_no_change(tmp_path: Path, name: str) -> None:
    """Somebody has looked at the folder: the slide is as it was."""
    (tmp_path / "a.mrxs").write_bytes(b"index")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "Data0000.dat").write_bytes(b"one")
    before = read_identity(tmp_path / "a.mrxs", INFO)
    (tmp_path / "a" / name).write_bytes(b"any")
    now = read_identity(tmp_path / "a.mrxs", INFO)
    assert now == before == identity_as_recorded(tmp_path / "a.mrxs", now, before.file_bytes)
    assert identity_as_recorded(tmp_path / "a.mrxs", now, None) == before

    # An earlier version counted it: the slide that it recorded is this one still, and no other.
    counted = identity_as_recorded(tmp_path / "a.mrxs", now, before.file_bytes + 3)
    assert (counted.file_bytes, counted.sha256) == (11, parts_digest(tmp_path / "a.mrxs", strays=True)[0])
    assert counted.sha256 != before.sha256
    assert identity_as_recorded(tmp_path / "a.mrxs", now, before.file_bytes + 4) == before


def test_a_dicom_slide_is_more_than_the_uid_of_its_series(tmp_path: Path) -> None:
    """OpenSlide's quickhash of it is a hash of that UID, so that any pixels would do under it."""
    label, half, full, _ = write_slide(tmp_path / "a", "s", RGB, "1.2.3.4")
    write_slide(tmp_path / "a", "other", RGB, "1.2.3.5")
    before, geometry = Slide(full).identity(), Slide(full).geometry(64, 0.5)
    assert Slide(full).identity() == before == identity_from_record(before.record(), before.quickhash, (300, 260))
    others = write_slide(tmp_path / "b", "s", 255 - RGB, "1.2.3.4")
    for part, fields in ((half, ["series_sha256"]), (full, ["file_bytes", "sha256", "series_sha256"])):
        kept = part.read_bytes()
        shutil.copy(others[1 if part == half else 2], part)
        swapped = Slide(full)
        assert swapped.info.quickhash == before.quickhash is not None
        assert [c.split(":")[0] for c in before.changes(swapped.identity())] == fields
        with pytest.raises(SlideError, match="not the slide that was planned"):
            require_planned(swapped, before, geometry)
        earlier = replace(before, series_sha256=None)  # as plans of earlier versions know it
        assert [c.split(":")[0] for c in earlier.changes(swapped.identity())] == fields[:-1]
        part.write_bytes(kept)
    label.unlink()  # for privacy; it is no level
    shutil.copytree(tmp_path / "a", tmp_path / "moved")
    full.rename(tmp_path / "a" / "renamed.dcm")
    for path in (tmp_path / "a" / "renamed.dcm", tmp_path / "moved" / full.name):
        assert before.changes(Slide(path).identity()) == []


def test_a_zeiss_slide_is_more_than_its_identifiers(tmp_path: Path) -> None:
    """OpenSlide's quickhash of a CZI is of its identifiers and metadata, whatever its pixels are."""
    path = make_czi_slide(tmp_path / "a.czi", RGB, mpp=0.5)
    before, geometry = Slide(path).identity(), Slide(path).geometry(64, 0.5)
    assert require_planned(Slide(path), before, geometry) == ""
    swapped = Slide(make_czi_slide(path, 255 - RGB, mpp=0.5))
    assert swapped.info.quickhash == before.quickhash is not None
    assert [c.split(":")[0] for c in before.changes(swapped.identity())] == ["sha256"]
    with pytest.raises(SlideError, match="not the slide that was planned"):
        require_planned(swapped, before, geometry, accepts_changed=accept_all)


def test_all_images_of_a_hamamatsu_index_count(tmp_path: Path) -> None:
    """A repaired one is read by `--retry-failures` like that of any slide, as the quickhash is of its map."""
    path, pixels = tmp_path / "a.vms", sf.make_pixels("tissue", 640, 384, mpp=0.5)
    images = make_vms_slide(path, pixels, mpp=0.5)
    before, geometry = Slide(path).identity(), Slide(path).geometry(64, 0.5)
    earlier, accepted = replace(before, series_sha256=None), set[str]()
    for image in images[1:]:
        kept = image.read_bytes()
        shutil.copy(images[0], image)
        other = Slide(path)
        assert before.changes(other.identity()) == []
        assert [c.split(":")[0] for c in before.file_changes(other.identity())] == ["series_sha256"]
        with pytest.raises(SlideError, match="its file has changed since it was planned"):
            require_planned(other, before, geometry)
        warning = require_planned(other, before, geometry, accepts_changed=lambda _, sha256: not accepted.add(sha256))
        assert "It is read" in warning
        assert require_planned(other, earlier, geometry) == ""  # a plan of an earlier version goes on
        image.write_bytes(kept)
    assert len(accepted) == 3  # one repair does not stand for another
    assert require_planned(Slide(path), before, geometry) == ""
    images[2].unlink()
    assert before.file_changes(read_identity(path, INFO)) != []


def test_images_of_other_layers_do_not_count(tmp_path: Path) -> None:
    """OpenSlide does not read them."""
    make_vms_slide(tmp_path / "a.vms", sf.make_pixels("tissue", 640, 384, mpp=0.5), mpp=0.5)
    before = read_identity(tmp_path / "a.vms", INFO).series_sha256
    (tmp_path / "b.jpg").write_bytes(b"any")
    with (tmp_path / "a.vms").open("a") as file:
        file.write("ImageFile(1)=b.jpg\nImageFile(2,0,1)=b.jpg\n")
    assert read_identity(tmp_path / "a.vms", INFO).series_sha256 == before is not None
    with (tmp_path / "a.vms").open("a") as file:
        file.write("ImageFile(0,0,2)=b.jpg\n")
    assert read_identity(tmp_path / "a.vms", INFO).series_sha256 != before


def test_only_a_dicom_slide_has_a_series(tmp_path: Path) -> None:
    """The records of all others are those of earlier versions, and so are the hashes of their plans."""
    path = sf.make_slide(tmp_path / "a.svs", width=300, height=260, mpp=0.5)
    identity = Slide(path).identity()
    assert identity.series_sha256 is None
    assert list(identity.record()) == ["file_bytes", "level_sizes_px", "own_mpp", "sha256"]


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match=r"a\.svs: the slide cannot be read \(No such file or directory\)"):
        read_identity(tmp_path / "a.svs", INFO)


def test_nothing_known_is_no_identity() -> None:
    assert not SlideIdentity(None, (1, 1)).is_content


def test_a_slide_is_held_against_the_manifests_hash(tmp_path: Path) -> None:
    path, digest = tmp_path / "a.svs", hashlib.sha256(b"slide").hexdigest()
    path.write_bytes(b"slide")
    check_sha256(path, digest.upper())
    with pytest.raises(SlideError, match=r"a\.svs: its SHA-256 is not the manifest's"):
        check_sha256(path, "0" * 64)
    path.unlink()
    with pytest.raises(SlideError, match=r"a\.svs: the slide cannot be read \(No such file"):
        check_sha256(path, digest)
