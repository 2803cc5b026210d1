"""The plan of a store of features: its splits, cases and samples."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from support.features import FeatureSlide, changed, write_trident
from support.importing import assert_same_rows, rows_of, run_import

from pipeline.sampling import TRAIN, VAL
from pipeline.store.store import Store


def test_splits_and_cases_are_those_of_a_plan(
    tmp_path: Path, pyramids: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    features = write_trident(tmp_path, slides)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        "slide_id,path,case_id,center,split,grade\ns0,s0.svs,a,north,val,2\ns1,s1.svs,b,south,train,3\n"
    )
    plan = run_import(features, tmp_path / "a.zarr", options, manifest=manifest).store.plan
    assert [(s.case_id, s.center, set(s.split), s.labels) for s in plan.slides] == [
        ("a", "north", {VAL}, {"grade": "2"}),
        ("b", "south", {TRAIN}, {"grade": "3"}),
    ]
    barcoded = tmp_path / "tcga"
    barcoded.mkdir()
    names = ["TCGA-A2-A0T2-01Z-00-DX1.AB", "TCGA-E2-A14N-01Z-00-DX1.CD"]
    for i, name in enumerate(names):
        shutil.copy(pyramids / f"s{i}.svs", barcoded / f"{name}.svs")
    renamed = [s for i in range(2) for s in changed(slides, f"s{i}", name=names[i]) if s.name == names[i]]
    features = write_trident(tmp_path / "renamed", renamed)
    plan = run_import(features, tmp_path / "b.zarr", options, manifest=None, slides_root=barcoded).store.plan
    assert [s.case_id for s in plan.slides] == ["TCGA-A2-A0T2", "TCGA-E2-A14N"]
    assert all(s.center for s in plan.slides)


def test_half_precision_and_samples(
    tmp_path: Path, extracted: Store, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path, slides)
    half = run_import(features, tmp_path / "h.zarr", options, dtype="float16", pixels="none").store
    assert not half.has_pixels
    stored = np.concatenate([half.first.read_embeddings(shard) for shard in range(half.first.num_shards)])
    assert stored.dtype == np.float16
    expected = np.concatenate([extracted.first.read_embeddings(shard) for shard in range(extracted.first.num_shards)])
    np.testing.assert_array_equal(stored, expected.astype(np.float16))
    few = run_import(features, tmp_path / "f.zarr", options, patches_per_slide=5).store
    assert [len(s.coords_l0_px) for s in few.plan.slides] == [5, 5]
    every = rows_of(extracted)
    assert_same_rows(rows_of(few), {key: every[key] for key in rows_of(few)})
