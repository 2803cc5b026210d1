"""What `g2l embed` starts from: slides, model, resolution and type of numbers; and words for what is none of them."""

import json
import shutil
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from support.students import small_student, write_exported

from pipeline.base.errors import ConfigError, EncoderError
from pipeline.config.groups import Resampling
from pipeline.config.model_names import SCRATCH
from pipeline.config.tissue_rules import EARLIER_RULES, MAX_ARTEFACT, rules_in_use
from pipeline.config.tools import EmbedConfig
from pipeline.student.resolve import NamedModel
from pipeline.student.student_json import STUDENT_JSON, read_student_json, write_student_json
from stages.embed_inputs import (
    check_wanted_teacher,
    choose_dtype,
    continued_grid,
    find_model,
    plan_grid,
    read_slides,
    trained_mpp,
)


def options(layout: str = "trident", **values: Any) -> EmbedConfig:
    return EmbedConfig.build({"layout": layout} | values)


def model_folder(folder: Path, **config: Any) -> NamedModel:
    """A model in a folder whose description has these values."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architecture": "test_vit"} | config))
    return NamedModel("mine", f"local-dir:{folder}", SCRATCH, 64)


# --- slides -------------------------------------------------------------------------------------------------


def test_one_slide_a_folder_and_a_manifest_name_the_same_slides(slides_dir: Path, tmp_path: Path) -> None:
    (single,) = read_slides(slides_dir / "slide_1.svs", None).rows
    assert (single.slide_id, single.path) == ("slide_1", "slide_1.svs")
    names = [f"slide_{i}" for i in range(1, 5)]
    for source, root in ((slides_dir, None), (slides_dir / "manifest.csv", None)):
        manifest = read_slides(source, root)
        assert [row.slide_id for row in manifest.rows] == names
        assert all(manifest.slide_path(row).is_file() for row in manifest.rows)
    (tmp_path / "m.csv").write_text("slide_id,path\nx,slide_2.svs\n")
    manifest = read_slides(tmp_path / "m.csv", slides_dir)
    assert manifest.slide_path(manifest.rows[0]) == slides_dir / "slide_2.svs"


def test_a_missing_slide_is_left_to_fail_by_itself_but_not_all_of_them(slides_dir: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text(f"slide_id,path\na,gone.svs\nb,{slides_dir / 'slide_1.svs'}\n")
    assert [row.slide_id for row in read_slides(manifest, None).rows] == ["a", "b"]
    manifest.write_text("slide_id,path\na,gone.svs\nb,too.svs\n")
    with pytest.raises(ConfigError, match=r"none of the 2 slides of .*gone\.svs\): say with --slides-root"):
        read_slides(manifest, None)


@pytest.mark.parametrize("source", [".", "slide_1.svs"])
def test_a_root_goes_with_a_manifest_only(slides_dir: Path, source: str) -> None:
    with pytest.raises(ConfigError, match=r"--slides-root goes with a manifest \(CSV\)"):
        read_slides(slides_dir / source, slides_dir)


def test_what_is_no_slide_and_what_has_no_usable_name_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none: no such manifest \(CSV\), folder of slides, or slide"):
        read_slides(tmp_path / "none", None)
    (tmp_path / " a.svs").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"the slide's name starts or ends with a space.*; rename it"):
        read_slides(tmp_path / " a.svs", None)


# --- the model ----------------------------------------------------------------------------------------------


def test_a_model_is_taken_at_the_size_that_was_asked_for() -> None:
    assert find_model("test_resnet", options(patch_px=96)).patch_px == 96
    assert find_model("uni", options()).patch_px == 224
    with pytest.raises(ConfigError, match=r"uni takes patches of 224 px, not of --patch-px 64"):
        find_model("uni", options(patch_px=64))


def test_only_a_student_stands_in_for_its_teacher() -> None:
    with pytest.raises(ConfigError, match=r"--teacher uni goes with --as-teacher"):
        find_model("uni", options(teacher="uni"))
    with pytest.raises(ConfigError, match=r"--as-teacher: uni has no projector into a teacher's space"):
        find_model("uni", options(as_teacher=True))


@pytest.mark.parametrize(
    ("known", "teacher", "words"),
    [
        ([], "uni", "learnt from one teacher only; leave out --teacher"),
        (["uni", "gigapath"], None, "learnt from uni, gigapath: say with --teacher which"),
        (["uni", "gigapath"], "virchow", "--teacher virchow: run learnt from uni, gigapath"),
    ],
)
def test_the_teacher_is_named_where_there_are_several(known: list[str], teacher: str | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_wanted_teacher("run", known, teacher)
    check_wanted_teacher("run", known, known[-1] if known else None)


# --- resolution and type ------------------------------------------------------------------------------------


def test_a_model_says_its_resolution_in_its_folder_or_by_its_name(tmp_path: Path) -> None:
    assert trained_mpp(model_folder(tmp_path / "a", mpp=0.25)) == 0.25
    assert trained_mpp(model_folder(tmp_path / "b")) is None
    assert trained_mpp(NamedModel("x", "uni", SCRATCH, 224)) == 0.5
    assert trained_mpp(NamedModel("x", "resnet18", SCRATCH, 224)) is None
    with pytest.raises(EncoderError, match="mpp"):
        trained_mpp(model_folder(tmp_path / "c", mpp="fine"))


def test_the_grid_is_the_models_but_for_what_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = model_folder(tmp_path / "a", mpp=0.25)
    grid = plan_grid(named, options(stride_px=32, min_tissue=0.25, allow_upsampling=True))
    assert (grid.patch_px, grid.mpp, grid.stride_px, grid.min_tissue) == (64, 0.25, 32, 0.25)
    assert grid.allow_upsampling
    assert plan_grid(named, options(mpp=0.252)).mpp == 0.252
    assert capsys.readouterr().err == ""
    assert plan_grid(named, options(mpp=0.5)).mpp == 0.5
    assert "note: mine was trained at 0.25 um/px, --mpp is 0.5" in capsys.readouterr().err


def test_a_student_s_patches_are_reduced_as_in_its_training(tmp_path: Path) -> None:
    write_exported(tmp_path / "pillow", *small_student(1))
    content = read_student_json(tmp_path / "pillow")
    encoder = content.encoder.model_copy(update={"resampling": "lanczos-torch"})
    by_torch = content.model_copy(update={"encoder": encoder})
    write_student_json(shutil.copytree(tmp_path / "pillow", tmp_path / "torch"), by_torch)
    assert read_student_json(tmp_path / "torch") == by_torch
    (shutil.copytree(tmp_path / "torch", tmp_path / "earlier") / STUDENT_JSON).unlink()
    for name, by in (("torch", "lanczos-torch"), ("pillow", "lanczos-pillow"), ("earlier", "lanczos-pillow")):
        named = replace(model_folder(tmp_path / f"{name}-model", mpp=0.5), student=tmp_path / name)
        assert plan_grid(named, options(mpp=0.5)).resampling == by
        for asked in ("lanczos-torch", "lanczos-pillow"):
            assert plan_grid(named, options(mpp=0.5, resampling=asked)).resampling == asked
    assert plan_grid(model_folder(tmp_path / "other", mpp=0.5), options()).resampling == "lanczos-torch"


def test_a_folder_goes_on_as_it_was_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of earlier versions do not say that Pillow reduced their patches."""
    torch: Resampling = "lanczos-torch"
    grid = plan_grid(model_folder(tmp_path / "m", mpp=0.5), options())
    assert continued_grid(grid, options(), None).resampling == torch
    assert continued_grid(grid, options(), {"mpp": 0.5}).resampling == "lanczos-pillow"
    assert continued_grid(grid, options(), {"resampling": torch}).resampling == torch
    assert continued_grid(grid, options(resampling=torch), {"mpp": 0.5}).resampling == torch  # and is refused later
    monkeypatch.setattr(metadata, "version", {"torch": "2.6.0"}.__getitem__)
    assert continued_grid(grid, options(), {}).resampling == "lanczos-pillow"
    with pytest.raises(ConfigError, match=r"torch 2\.6\.0 cannot reduce patches by Lanczos"):
        continued_grid(grid, options(), None)


def test_a_student_s_tiles_are_decoded_as_in_its_training(tmp_path: Path) -> None:
    write_exported(tmp_path / "full", *small_student(1))
    content = read_student_json(tmp_path / "full")
    halved = content.model_copy(update={"encoder": content.encoder.model_copy(update={"decode": "half"})})
    write_student_json(shutil.copytree(tmp_path / "full", tmp_path / "half"), halved)
    assert read_student_json(tmp_path / "half") == halved
    assert "decode" not in (tmp_path / "full" / STUDENT_JSON).read_text()
    for name in ("full", "half"):
        named = replace(model_folder(tmp_path / f"{name}-model", mpp=0.5), student=tmp_path / name)
        assert plan_grid(named, options(mpp=0.5)).decode == named.decode == name
        for asked in ("full", "half"):
            assert plan_grid(named, options(mpp=0.5, decode=asked)).decode == asked
    grid = plan_grid(model_folder(tmp_path / "other", mpp=0.5), options())
    assert grid.decode == "full"
    assert continued_grid(grid, options(), {"decode": "half"}).decode == "half"
    assert continued_grid(replace(grid, decode="half"), options(), {}).decode == "full"
    half = continued_grid(replace(grid, decode="half"), options(decode="half"), {})
    assert half.decode == "half"  # and is refused later


def test_a_folder_goes_on_with_the_rules_that_it_was_begun_with(tmp_path: Path) -> None:
    """Folders of earlier versions do not name them."""
    named = model_folder(tmp_path / "m", mpp=0.5)
    grid = plan_grid(named, options())
    assert grid.rules == rules_in_use([], [])
    assert plan_grid(named, options(skip_rule=["pen"], use_rule=["fat"])).rules == rules_in_use(["pen"], ["fat"])
    assert continued_grid(grid, options(), None).rules == grid.rules
    assert continued_grid(grid, options(), {"mpp": 0.5}).rules == EARLIER_RULES
    assert continued_grid(grid, options(), {"rules": ["dark", "pen"]}).rules == ("dark", "pen")
    assert continued_grid(grid, options(skip_rule=[]), {"mpp": 0.5}).rules == grid.rules  # and is refused later
    assert plan_grid(named, options(max_artefact=0.3)).max_artefact == 0.3
    assert [continued_grid(grid, options(), kept).max_artefact for kept in (None, {}, {"max_artefact": 0.2})] == [
        MAX_ARTEFACT,
        1,
        0.2,
    ]
    with pytest.raises(ConfigError, match="by the rule sparkle, which is not known here"):
        continued_grid(grid, options(), {"rules": ["dark", "sparkle"]})


def test_a_resolution_that_nobody_says_is_asked_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    named = model_folder(tmp_path / "a")
    with pytest.raises(ConfigError, match=r"nothing says at which resolution mine was trained\. Give it with --mpp"):
        plan_grid(named, options())
    assert plan_grid(named, options(mpp=1.0)).mpp == 1.0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("layout", "dtype", "stored"),
    [
        ("trident", None, "float32"),
        ("trident", "float16", "float16"),
        ("pt", "float16", "float16"),
        ("stamp", None, "float16"),
        ("clam", "float32", "float32"),
        ("stamp", "float32", None),
        ("clam", "float16", None),
    ],
)
def test_a_layout_has_its_types(layout: str, dtype: str | None, stored: str | None) -> None:
    if stored is not None:
        assert choose_dtype(layout, dtype) == stored
        return
    with pytest.raises(ConfigError, match=f"--dtype {dtype}: features of --layout {layout} are float"):
        choose_dtype(layout, dtype)
