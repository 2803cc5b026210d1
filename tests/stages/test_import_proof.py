"""Import: the features are proven to be those of the teacher at these places."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.commands import call_g2l
from support.extraction import PATCH_PX, array_files, write_teacher
from support.features import FeatureSlide, changed, write_clam, write_slide2vec, write_trident
from support.importing import (
    assert_same_rows,
    audit_of,
    import_flags,
    interrupt_after_a_shard,
    one_slide,
    rows_of,
    run_import,
)

from pipeline.base.errors import ConfigError, PlanError, StoreError
from pipeline.config.model_names import PRETRAINED
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.table import EncoderSpec
from pipeline.store.store import Store
from stages import import_features as stage
from stages.importing import teacher


@pytest.mark.slow
def test_features_of_another_slide_or_place_are_caught(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], extracted: Store
) -> None:
    """All of the slides, or most, refuse the import; a few fail by name, and the others are imported."""
    a, b = slides
    swapped = [*changed([a], "s0", features=b.features), *changed([b], "s1", features=a.features)]
    features = write_trident(tmp_path / "swapped", swapped)
    with pytest.raises(
        StoreError, match=r"(?s)2 of 2 slides are not those that test_resnet gives .*  s0: cosine.*  s1: cosine"
    ):
        run_import(features, tmp_path / "s.zarr", options)
    assert not (tmp_path / "s.zarr").exists()
    features = moved_features(tmp_path / "moved", slides)
    code, said, err = call_g2l("import-features", features, "--out", tmp_path / "s.zarr", *import_flags(options))
    assert code == 3, err
    store = Store(tmp_path / "s.zarr")
    reason = audit_of(store)["s1"]
    assert re.fullmatch(
        r"\S*/s1\.h5: not the features that test_resnet gives at these places: cosine \S+, \d+% of "
        r"the other rows nearer \(medians; needed are a cosine of 0\.9 and at most 5%\)",
        reason,
    )
    assert (audit_of(store).keys(), reason in err, "refused: s1" in err) == ({"s1"}, True, True)
    expected = rows_of(extracted)
    assert_same_rows(rows_of(store), {key: value for key, value in expected.items() if key[0] == "s0"})
    assert (store.first.attributes["proof"]["rows"], store.first.attributes["proof"]["max_nearer"]) == (4, 0)
    assert [r["slide_id"] for r in store.first.attributes["refused"]] == ["s1"]
    assert store.first.spec.settings["imported"]["features_sha256"].keys() == {"s0"}
    assert "proven on 4 patches" in said
    code, said, _ = call_g2l("verify", store.folder, "--weights", options["weights"], "--device", "cpu")
    assert (code, "12 rows embedded again" in said) == (0, True), said
    done = run_import(features, tmp_path / "t.zarr", options, check_rows=0)  # who does not ask is not told
    assert not {"proof", "refused"} & done.teacher.attributes.keys()
    assert len(done.store.plan.slides) == 2


def moved_features(folder: Path, slides: list[FeatureSlide]) -> Path:
    """The features of s1 by a row, those of s0 as they are."""
    return write_trident(folder, changed(slides, "s1", features=np.roll(one_slide(slides).features, 1, axis=0)))


def test_a_slide_of_much_larger_values_hides_no_other(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    """Such as bfloat16 that was written as whole numbers: it was most of the mean, less which all slides were alike."""
    mixed = changed(slides, "s1", features=np.roll(one_slide(slides).features, 1, axis=0))
    large = changed(mixed, "s0", features=next(s for s in slides if s.name == "s0").features * 100_000)
    with pytest.raises(StoreError, match=r"(?s)2 of 2 slides are not those that test_resnet gives .*  s0: .*  s1: "):
        run_import(write_trident(tmp_path / "f", large), tmp_path / "s.zarr", options)


@pytest.mark.slow
def test_a_refused_slide_stays_refused_when_continued_and_is_not_forgotten_when_mended(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    features, whole, out = moved_features(tmp_path / "f", slides), tmp_path / "w.zarr", tmp_path / "k.zarr"
    run_import(features, whole, options)
    interrupt_after_a_shard(features, out, options, monkeypatch)
    assert Store(out).first.ledger.pending()
    with monkeypatch.context() as stop:  # the proof is not made anew
        stop.setattr(stage, "embed_sample", lambda *_, **__: pytest.fail("proven twice"))
        assert run_import(features, out, options).num_new_rows > 0
    assert audit_of(Store(out)).keys() == {"s1"}
    assert array_files(out) == array_files(whole)
    for name in ("zarr.json", "audit.csv"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()
    mended = write_trident(tmp_path / "mended", slides)
    with pytest.raises(StoreError, match=r"(?s)made with other inputs .*features_sha256\.s1: nothing -> "):
        run_import(mended, out, options)


def test_features_of_another_model_are_caught(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any]
) -> None:
    features = write_trident(tmp_path / "features", slides)
    other = write_teacher(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(StoreError, match="the features of 2 of 2 slides are not those that test_resnet gives"):
        run_import(features, tmp_path / "s.zarr", options, weights=other)
    assert not (tmp_path / "s.zarr").exists()


def test_without_weights_it_is_said_and_verify_says_so_too(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], weights: Path
) -> None:
    features = write_slide2vec(tmp_path / "features", slides)
    out = tmp_path / "s.zarr"
    code, said, err = call_g2l("import-features", features, "--out", out, *import_flags(options | {"weights": None}))
    assert code == 0, err
    assert "note: not proven that features and slides belong together (the teacher's weights are not here" in err
    assert "not proven: see --weights" in said
    assert Store(out).first.spec.teacher["weights_sha256"] == ""
    code, said, _ = call_g2l("verify", out, "--device", "cpu")
    assert (code, "the teacher's weights are not known; give --weights" in said) == (0, True)
    assert "features of slide2vec; not proven to belong to these slides" in call_g2l("inspect", out)[1]
    code, said, _ = call_g2l("verify", out, "--device", "cpu", "--weights", weights)
    assert (code, "24 rows embedded again" in said) == (0, True)


def test_weights_in_the_hubs_cache_prove_it_unasked(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(name: str, source: object, patch_px: int) -> BuiltEncoder:
        assert source == PRETRAINED
        return build_encoder(name, weights, patch_px)

    monkeypatch.setattr(teacher, "cached_weights", lambda spec: weights)
    monkeypatch.setattr(teacher, "build_encoder", build)
    done = run_import(write_trident(tmp_path, slides), tmp_path / "s.zarr", options, weights=None)
    assert done.teacher.attributes["proof"]["rows"] == 8


def test_a_teacher_of_the_table_is_described_without_being_built(
    tmp_path: Path, slides: list[FeatureSlide], options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EncoderSpec("made", "timm:x", "no_such", embedding="cls", width=96, patch_px=PATCH_PX, mpp=0.5, params_m=0.4)
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"made": spec})
    features = write_clam(tmp_path / "f", slides)
    store = run_import(features, tmp_path / "s.zarr", options, teacher="made", weights=None).store
    assert store.first.spec.teacher == spec.record() | {
        "weights": "unknown",
        "weights_sha256": "",
        "num_params": 400_000,
    }
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"made": replace(spec, width=95)})
    with pytest.raises(PlanError, match=r"s0\.h5: 96 dimensions; made has 95"):
        run_import(features, tmp_path / "t.zarr", options, teacher="made", weights=None)
    with pytest.raises(ConfigError, match="--patch-px 32: made takes patches of 64 px"):
        run_import(features, tmp_path / "t.zarr", options, teacher="made", weights=None, patch_px=32)
