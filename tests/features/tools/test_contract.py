"""What the file layout of every tool must do, also that of a toy: one file (support/toy_tool.py), one line."""

import ast
import functools
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from support.embedded import ENCODER, GRID, SLIDES, embedded
from support.extraction import PATCH_PX, TEACHER, write_cohort, write_teacher
from support.places import ROOT
from support.toy_tool import TOY

from pipeline.base.errors import BenchmarkError, ConfigError, EmbedError
from pipeline.config import feature_tools
from pipeline.config.feature_tools import FeatureTool, layouts, tool_names
from pipeline.config.tools import EmbedConfig, ImportConfig
from pipeline.features.find import find_feature_tree
from pipeline.features.layouts import EmbeddedSlide, Place
from pipeline.features.read import PlacedFeatures, read_features, read_placed
from pipeline.features.registry import find_writer
from pipeline.features.tool import Tool
from stages.embed import embed
from stages.import_features import import_features

pytestmark = pytest.mark.usefixtures("with_toy")


@pytest.fixture
def place(tmp_path: Path, entry: FeatureTool) -> Place:
    """Where files of the layout go."""
    assert entry.layout is not None
    return Place(tmp_path / "out", find_writer(entry.layout), ENCODER, GRID)


def written(place: Place, dtype: str | None = None) -> dict[str, EmbeddedSlide]:
    """Write all slides."""
    slides = {slide_id: embedded(slide_id, dtype or place.writer.dtypes[0]) for slide_id in SLIDES}
    for slide in slides.values():
        place.write(slide)
    return slides


# --- one file and one line ---


def test_the_options_take_their_choices_from_the_list() -> None:
    names = [entry.layout for entry in feature_tools.TOOLS if entry is not TOY]
    assert list(layouts()) == [*names, "toy"]
    with pytest.raises(ConfigError, match=" or 'toy'"):
        EmbedConfig.build({"layout": "toys"})
    assert tool_names().replace(" or ", ", ").split(", ") == [entry.name for entry in feature_tools.TOOLS]
    assert tool_names().endswith(" or Toy")


NAMES = re.compile(r"trident|slide2vec|(?<![a-z])(stamp|clam)(?![a-z])", re.IGNORECASE)


@pytest.mark.parametrize(
    "path",
    sorted(
        path.relative_to(ROOT)
        for folder in ("pipeline/features", "pipeline/config", "stages", "stages/reports")
        for path in (ROOT / folder).glob("*.py")
        if path.name not in ("feature_tools.py", "export.py")  # export's adapters are another matter
    ),
    ids=str,
)
def test_only_a_tool_s_own_file_names_it(path: Path) -> None:
    """And the list does; whoever asks all tools knows none, not even in a comment."""
    assert not NAMES.findall((ROOT / path).read_text())


def test_a_tool_imports_no_other() -> None:
    for path in (ROOT / "pipeline/features/tools").glob("*.py"):
        imported = {node.module for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not [name for name in imported if name and name.startswith("pipeline.features.tools")]


# --- what write gives, find finds and read returns ---


def test_what_is_written_is_found_and_read(place: Place, tool: Tool) -> None:
    for dtype in place.writer.dtypes:
        folder = replace(place, folder=place.folder / dtype)
        slides = written(folder, dtype)
        tree = find_feature_tree(folder.folder)
        assert tree.files.keys() == slides.keys()
        for slide_id, path in tree.files.items():
            assert path.suffix in tool.suffixes
            features = read_features(path)
            np.testing.assert_array_equal(features.features, slides[slide_id].features.astype(np.float32))
            assert features.encoder == ENCODER
            assert features.coords is not None


def test_facts_say_where_the_patches_lie(place: Place, tool: Tool) -> None:
    slides = written(place)
    for slide_id, path in find_feature_tree(place.folder).files.items():
        geometry, placed = slides[slide_id].plan.geometry, read_placed(path)
        np.testing.assert_array_equal(placed.coords_l0_px(geometry.slide_mpp), slides[slide_id].coords_l0_px)
        assert placed.facts.layout == tool.name.lower()
        assert placed.facts.side(geometry.slide_mpp) == pytest.approx(geometry.patch_l0_px, rel=1e-9)
        assert placed.facts.patch_px == GRID.patch_px
        assert placed.facts.size_l0_px in (None, slides[slide_id].plan.size_l0_px)


def test_a_flipped_bit_of_a_number_is_noticed(place: Place) -> None:
    """The mark has a hash of the features, for HDF5 has none of its own."""
    slides = written(place)
    path = find_feature_tree(place.folder).files["even"]
    read_features(path)
    data = bytearray(path.read_bytes())
    data[data.index(slides["even"].features[4].tobytes())] ^= 1
    path.write_bytes(data)
    with pytest.raises(BenchmarkError, match=re.escape(str(path))):
        read_features(path)


def test_facts_say_who_reduced_the_patches(place: Place) -> None:
    """As the mark says; without a word in it, as in earlier versions, Pillow. A program that is not known is named."""
    assert {read_placed(path).facts.resampling for path in written_files(place)} == {"lanczos-pillow"}
    assert {read_placed(path).facts.resampling for path in written_files(place, "lanczos-torch")} == {"lanczos-torch"}
    path = written_files(place, "nearest")[0]
    with pytest.raises(BenchmarkError, match=f"{path.name}: what it says of its patches cannot be read.*'nearest'"):
        read_placed(path)


def written_files(place: Place, resampling: str | None = None) -> list[Path]:
    """The feature files of all slides, whose marks say who reduced the patches."""
    for slide_id in SLIDES:
        slide = embedded(slide_id, place.writer.dtypes[0])
        if resampling is not None:
            settings = slide.made_by["settings"] | {"resampling": resampling}
            slide = replace(slide, made_by=slide.made_by | {"settings": settings})
        place.write(slide)
    return list(find_feature_tree(place.folder).files.values())


def test_the_same_slide_gives_the_same_files(place: Place) -> None:
    written(place)
    files = {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()}
    assert set(files) == {path for slide_id in SLIDES for path in place.files(slide_id).values()}
    written(place)
    assert {path: path.read_bytes() for path in place.folder.rglob("*") if path.is_file()} == files


# --- a finished slide and others ---


def test_the_mark_comes_back_and_nothing_counts_without_it(place: Place) -> None:
    slide = embedded("even", place.writer.dtypes[0])
    assert place.read_mark("even") is None
    mark = place.write(slide)
    assert (mark.rows, mark.failed, mark.made_by, mark.slide) == (9, 2, slide.made_by, slide.content)
    assert place.read_mark("even") == mark
    *others, last = place.files("even").values()
    assert last == place.marked_file("even")
    for path in others:
        whole = path.read_bytes()
        path.write_bytes(whole[:-1])
        assert place.read_mark("even") is None, f"{path} is cut short"
        path.write_bytes(whole)
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    assert place.read_mark("even") is None
    last.unlink()
    assert place.read_mark("even") is None


def test_a_file_of_another_maker_is_not_overwritten(place: Place) -> None:
    place.write(embedded("even", place.writer.dtypes[0]))
    last = place.marked_file("even")
    if last.suffix == ".json":
        last.write_text("{}")
    else:
        with h5py.File(last, "r+") as f:
            del f.attrs["g2l"]
    with pytest.raises(EmbedError, match=f"{last.name} was not made by g2l embed, and is not overwritten"):
        place.read_mark("even")


def test_a_full_disk_is_named_and_leaves_no_finished_slide(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever file of the slide it is that cannot be written."""
    slide = embedded("even", place.writer.dtypes[0])
    module = sys.modules[place.writer.write.__module__]
    real = {
        name: getattr(module, name) for name in ("write_features", "write_bytes", "write_json") if hasattr(module, name)
    }
    for blocked in place.files("even").values():

        def write(name: str, path: Path, *args: Any, blocked: Path = blocked, **kwargs: Any) -> None:
            if path == blocked:
                raise OSError(28, "No space left on device")
            real[name](path, *args, **kwargs)

        with monkeypatch.context() as full_disk:
            for name in real:
                full_disk.setattr(module, name, functools.partial(write, name))
            with pytest.raises(EmbedError, match=r"cannot write .*No space left on device.*Finished slides are safe"):
                place.write(slide)
        assert not place.marked_file("even").exists()
        assert place.read_mark("even") is None


# --- damaged input is a named failure ---

DAMAGE = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "text": lambda data: b"not what it should be\n" * 20,
}


def read_or_refusal(path: Path) -> tuple[PlacedFeatures | None, str]:
    """Placed features, or why a file is refused."""
    try:
        return read_placed(path), ""
    except BenchmarkError as error:
        return None, str(error)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_a_named_failure(place: Place, damage: str) -> None:
    """Of the features themselves; of the files beside them, either that or the same numbers: not all are read."""
    slide = written(place)["odd.v2"]
    path = find_feature_tree(place.folder).files["odd.v2"]
    for file in place.files("odd.v2").values():
        whole = file.read_bytes()
        file.write_bytes(DAMAGE[damage](whole))
        placed, refusal = read_or_refusal(path)
        if placed is None:
            assert "odd.v2" in refusal
            assert len(refusal.splitlines()) == 1
        else:
            assert file != path
            np.testing.assert_array_equal(placed.features, slide.features.astype(np.float32))
            np.testing.assert_array_equal(placed.coords_l0_px(0.2527), slide.coords_l0_px)
        file.write_bytes(whole)
    assert set(find_feature_tree(place.folder).files) == set(SLIDES)


def test_features_that_are_no_numbers_are_a_named_failure(place: Place) -> None:
    slide = embedded("even", place.writer.dtypes[0])
    slide.features[3, 2] = np.nan
    place.write(slide)
    with pytest.raises(BenchmarkError, match=r"even\.\w+: 1 of 9 rows have NaN or infinite values"):
        read_placed(find_feature_tree(place.folder).files["even"])


# --- the toy tool through the stages ---


@pytest.mark.slow
def test_a_toy_tool_is_written_found_and_imported(tmp_path: Path) -> None:
    """By the functions of `g2l embed` and `g2l import-features`, which have not heard of it."""
    manifest = write_cohort(tmp_path / "slides")
    weights = write_teacher(tmp_path / "teacher.safetensors")
    config = EmbedConfig.build(
        {
            "layout": "toy",
            "patch_px": PATCH_PX,
            "mpp": 0.5,
            "min_tissue": 0.0,
            "device": "cpu",
            "workers": 1,
            "batch_size": 8,
        }
    )
    out = tmp_path / "features"
    tally = embed(f"{TEACHER}@{weights}", manifest, out, config, options={})
    assert (tally.num_slides, tally.is_partial, tally.where) == (2, False, out / "toy")
    assert sorted(path.name for path in (out / "toy").iterdir()) == [
        "s0.about.json",
        "s0.toy",
        "s1.about.json",
        "s1.toy",
    ]
    again = embed(f"{TEACHER}@{weights}", manifest, out, config, options={})
    assert (again.num_before, again.new_patches) == (2, 0)
    options = {
        "slides_root": manifest.parent,
        "manifest": manifest,
        "teacher": TEACHER,
        "weights": weights,
        "dtype": "float32",
        "rows_per_shard": 16,
        "device": "cpu",
        "workers": 1,
    }
    teacher = import_features(out, tmp_path / "s.zarr", ImportConfig.build(options)).teacher
    assert teacher.settings["imported"]["layouts"] == ["toy"]
    assert teacher.attributes["proof"]["min_slide_cosine"] > 0.999
    stored = np.concatenate([teacher.read_embeddings(shard) for shard in range(teacher.num_shards)])
    start = 0
    for slide in teacher.plan.slides:
        placed = read_placed(out / "toy" / f"{slide.slide_id}.toy")
        features = dict(zip(map(tuple, placed.coords_l0_px(0.5).tolist()), placed.features, strict=True))
        for x, y in slide.coords_l0_px.tolist():
            np.testing.assert_array_equal(stored[start], features[x, y])
            start += 1
    assert start == len(stored) == tally.num_patches
