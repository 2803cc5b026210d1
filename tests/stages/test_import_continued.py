"""Import: stopped and continued, called again, or with an output that is something else."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import call_g2l
from support.extraction import array_files
from support.features import FeatureSlide, changed, write_slide2vec, write_trident
from support.importing import audit_of, import_flags, interrupt_after_a_shard, one_slide, run_import
from support.slides import make_slide

from pipeline.base.errors import PlanError, StoreError
from pipeline.store.store import Store


@pytest.mark.slow
def test_stopped_in_a_shard_and_continued_is_as_if_it_never_stopped(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, whole, out = (write_trident(tmp_path / "features", slides), tmp_path / "w.zarr", tmp_path / "k.zarr")
    run_import(features, whole, options)
    interrupt_after_a_shard(features, out, options, monkeypatch)
    assert Store(out).first.ledger.pending() in ([1, 2], [0, 1, 2])
    assert run_import(features, out, options).num_new_rows >= 16
    assert array_files(out) == array_files(whole)
    assert (out / "zarr.json").read_bytes() == (whole / "zarr.json").read_bytes()


@pytest.mark.slow
def test_other_inputs_are_refused_with_what_differs(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    run_import(features, out, options)
    Store(out).first.ledger.path(1).unlink()
    before = array_files(out)
    scaled = write_trident(tmp_path / "scaled", changed(slides, "s1", features=one_slide(slides).features * 1.01))
    for folder, more, words in (
        (features, {"dtype": "float16"}, "settings.dtype: 'float32' -> 'float16'"),
        (features, {"val_fraction": 0.2}, "settings.imported.options.val_fraction: 0.5 -> 0.2"),
        (features, {"weights": None}, "teacher.weights_sha256: "),
        (scaled, {}, "settings.imported.features_sha256.s1: "),
    ):
        with pytest.raises(StoreError, match="was made with other inputs and is not continued") as caught:
            run_import(folder, out, options | more)
        assert words in str(caught.value)
        assert "features_sha256.s0" not in str(caught.value)
    assert array_files(out) == before
    done = run_import(features, out, options)
    assert done.num_new_rows == 8
    assert Store(out).first.ledger.pending() == []
    moved = Path(shutil.move(features.parent, tmp_path / "elsewhere"))
    assert run_import(moved / features.name, out, options).num_new_rows == 0  # where files lie decides nothing


def test_the_record_feeds_back(tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]) -> None:
    features, out = write_trident(tmp_path / "features", slides), tmp_path / "s.zarr"
    assert call_g2l("import-features", features, "--out", out, *import_flags(options))[0] == 0
    code, said, err = call_g2l("import-features", "--config", out / "config.toml")
    assert (code, "nothing was left to do" in said) == (0, True), err


def test_an_output_that_is_something_else_is_left_alone(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    features = write_trident(tmp_path / "features", slides)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("work")
    with pytest.raises(StoreError, match="exists and is not a store; nothing is overwritten"):
        run_import(features, tmp_path / "thesis", options)
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["chapter.tex"]
    out = Path(shutil.copytree(extracted.folder, tmp_path / "s.zarr"))
    with pytest.raises(StoreError, match=r"s\.zarr was not made by import-features and is not continued"):
        run_import(features, out, options)
    assert array_files(out) == array_files(extracted.folder)


@pytest.mark.slow
def test_a_file_that_says_nonsense_of_its_patches(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_slide2vec(tmp_path, slides)
    path = features / "tile_embeddings" / "s1.meta.json"
    for text, words in ((json.dumps({"tile_size_lv0": -3}), "side of its patches is -3"), ("{", "not a readable")):
        path.write_text(text)
        done = run_import(features, tmp_path / f"{len(text)}.zarr", options)
        assert words in audit_of(done.store)["s1"]


@pytest.mark.slow
def test_slides_that_are_too_coarse_need_leave(tmp_path: Path, weights: Path, options: dict[str, Any]) -> None:
    (tmp_path / "s").mkdir()
    make_slide(tmp_path / "s" / "a.svs", width=512, height=448, mpp=1.0, downsamples=(1,), tile=64)
    slide = FeatureSlide("a", np.ones((2, 96), np.float32), np.array([[0, 0], [32, 0]]), 1.0, 64, 0.5, (512, 448))
    features = write_trident(tmp_path / "f", [slide])
    more = {"slides_root": tmp_path / "s", "manifest": None, "check_rows": 0}
    with pytest.raises(PlanError, match=r"coarser than the target of 0\.5.*--allow-upsampling"):
        run_import(features, tmp_path / "o.zarr", options | more)
    assert run_import(features, tmp_path / "o.zarr", options | more, allow_upsampling=True).num_failed == 0
