"""The exported student: timm alone loads it to the same embeddings, and the projector stands beside it."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from support.exports import taken_by_timm_1_0_16
from support.failing import failing, os_error
from support.stores import PATCH_PX, make_patches, make_store, student_folder, train_config
from support.students import SPECS, TINY, disturb, random_projector, small_student, write_exported
from support.training import train_once
from timm.models import save_for_hf

from g2l.students import load_student
from pipeline.base.errors import EncoderError, G2LError
from pipeline.config.model_names import SCRATCH
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.distillation import Distillation, Head
from pipeline.encoders import table as encoders
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.projector import Projector
from pipeline.store.teachers import ChosenTeachers, choose_teachers
from pipeline.student.card import card_facts, figures_table, model_card
from pipeline.student.folder import changed_since_export, load_projector, stated_mpp, timm_json
from pipeline.student.resolve import name_model
from pipeline.student.start import find_start
from pipeline.student.student_json import read_student_json
from pipeline.training.held_out import ONLY

STUDENTS: dict[str, tuple[Callable[[Path], str], int]] = {
    "vit with registers at another size": (
        lambda folder: student_folder(folder, "vit_small_patch14_reg4_dinov2", 42, **TINY),
        42,
    ),
    "cnn": (lambda folder: student_folder(folder, "test_efficientnet", 40, drop_path_rate=0.2), 40),
    "plain timm name": (lambda _: "test_vit", 64),
    "swiglu from the table": (lambda _: "tiny-swiglu", 42),
    "class token and mean": (lambda _: "tiny-mean", 42),
}

ELSEWHERE = """
import sys, timm, torch, numpy as np
from PIL import Image
for folder in sys.argv[1:]:
    model = timm.create_model(f"local-dir:{folder}/student", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    patches = np.load(f"{folder}/patches.npy")
    outputs = []
    for array in patches:
        patch = Image.fromarray(array)
        scope = {"model": model, "patch": patch, "transform": transform, "torch": torch}
        with torch.inference_mode():
            images = scope["images"] = transform(patch)[None]
            assert images.shape[2:] == array.shape[:2], images.shape
            exec(open(f"{folder}/usage.py").read(), scope)
        outputs.append(scope["embedding"][0].numpy())
    np.save(f"{folder}/embeddings.npy", np.stack(outputs))
ours = sorted(name for name in sys.modules if name.split(".")[0] in ("pipeline", "stages"))
assert not ours, ours
"""


def usage_of(card: str) -> str:
    """The lines of the card's example that take the embedding, as a user would copy them."""
    inside = card.split("# patch: a PIL image, RGB\n")[1].split("```")[0]
    return "\n".join(line.removeprefix("    ") for line in inside.splitlines())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, BuiltEncoder, Projector]]:
    """Each student of `STUDENTS` exported, and embedded by a process that does not know this project."""
    root = tmp_path_factory.mktemp("exported")
    store = make_store(root / "store.zarr", train=(4,), val=(), rows_per_shard=4)
    teachers = choose_teachers(store, None, None)
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoders, "ENCODERS", MappingProxyType({**encoders.ENCODERS, **SPECS}))
        for i, (label, (name_of, patch_px)) in enumerate(STUDENTS.items()):
            folder = root / str(i)
            folder.mkdir()
            student = build_encoder(name_of(folder / "source"), SCRATCH, patch_px)
            disturb(student.module.model)
            projector = random_projector(student.spec.width)
            facts = card_facts(teachers, {}, student, train_config("x").for_card(), np.arange(4), 1)
            write_exported(folder / "student", student.module.model, student.spec, projector, model_card(facts))
            np.save(folder / "patches.npy", make_patches(5, patch_px, seed=i))
            (folder / "usage.py").write_text(usage_of(model_card(facts)))
            made[label] = (folder, student, projector)
    folders = [str(folder) for folder, _, _ in made.values()]
    command = [sys.executable, "-I", "-c", ELSEWHERE, *folders]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return made


@pytest.mark.slow
@pytest.mark.parametrize("label", STUDENTS)
def test_timm_alone_gives_the_same_embeddings(
    exported: dict[str, tuple[Path, BuiltEncoder, Projector]], label: str
) -> None:
    folder, student, projector = exported[label]
    distillation = Distillation(student, (Head("test-teacher", projector),), torch.device("cpu"), "float32")
    distillation.train(False)
    with torch.inference_mode():
        expected = distillation.embed(torch.from_numpy(np.load(folder / "patches.npy")))
    found = torch.from_numpy(np.load(folder / "embeddings.npy"))
    assert found.shape == (5, student.spec.width)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert expected.std(0).min() > 1e-6  # patches differ: agreement means something


@pytest.mark.slow
@pytest.mark.parametrize("label", STUDENTS)
def test_older_versions_of_timm_find_one_file_of_weights(
    exported: dict[str, tuple[Path, BuiltEncoder, Projector]], label: str, tmp_path: Path
) -> None:
    """By the rule of their loader; `test_old_timm` asks them themselves. Any second file would be in its way."""
    folder = Path(shutil.copytree(exported[label][0] / "student", tmp_path / "student"))
    assert [path.name for path in folder.glob("*.safetensors")] == ["model.safetensors"]
    assert taken_by_timm_1_0_16(folder) == "model.safetensors"
    (folder / "projector.safetensors").touch()
    with pytest.raises(NameError):
        taken_by_timm_1_0_16(folder)


@pytest.mark.slow
@pytest.mark.parametrize("label", STUDENTS)
def test_the_loaded_projector_is_the_trained_one(
    exported: dict[str, tuple[Path, BuiltEncoder, Projector]], label: str
) -> None:
    folder, student, projector = exported[label]
    loaded = load_projector(folder / "student")
    for name, value in projector.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value), name
    embeddings = torch.randn(6, student.spec.width, generator=torch.Generator().manual_seed(2))
    assert torch.equal(loaded.as_teacher(embeddings), projector.as_teacher(embeddings))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_the_config_is_json_that_names_the_students_own_statistics() -> None:
    student = build_encoder("test_vit", SCRATCH, 64)
    config = json.loads(json.dumps(timm_json(student.module.model, student.spec)))
    assert config["model_args"] == {"num_classes": 0, "img_size": 64}
    assert config["pretrained_cfg"]["input_size"] == [3, 64, 64]
    assert config["pretrained_cfg"]["mean"] == list(student.spec.mean)
    assert config["pretrained_cfg"]["crop_pct"] == 1.0


def test_a_folder_that_is_there_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "student"
    write_exported(folder, *small_student(1), "first")
    (folder / "stale.txt").write_text("")
    write_exported(folder, *small_student(2), "second")
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "projector",
        "student.json",
    ]
    assert (folder / "README.md").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["student"]


@pytest.mark.parametrize("call", ["write_text", "save_tensors", "sync_folder"])
def test_a_failing_disk_leaves_the_old_student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    folder = tmp_path / "student"
    write_exported(folder, *small_student(1), "first")
    monkeypatch.setattr(f"pipeline.student.folder.{call}", failing(os_error(errno.ENOSPC)))
    with pytest.raises(G2LError, match=r"cannot write the student to .*student: No space left on device"):
        write_exported(folder, *small_student(2), "second")
    card = (folder / "README.md").read_text()
    assert card == ("second" if call == "sync_folder" else "first")
    assert (folder / "model.safetensors").exists()
    assert not list(tmp_path.glob("*" + ASIDE_SUFFIX))


def test_a_projector_that_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match=r"projector\.safetensors: no such weights"):
        load_projector(tmp_path)
    write_exported(tmp_path / "student", *small_student(1), "card")
    path = tmp_path / "student" / "projector" / "projector.safetensors"
    whole = safetensors.torch.load_file(path)
    (tmp_path / "student" / "student.json").unlink()  # which would refuse all of these by their hash
    damaged = ({"linear.weight": torch.zeros(3)}, {**whole, "linear.weight": torch.full((2, 2), torch.nan)}, {})
    for state in damaged:
        safetensors.torch.save_file(state, path)
        with pytest.raises(EncoderError, match=r"projector\.safetensors: (not the projector|linear.weight holds NaN)"):
            load_projector(tmp_path / "student")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(EncoderError, match=r"projector\.safetensors: unreadable weights"):
        load_projector(tmp_path / "student")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_that_the_umask_gives(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_exported(tmp_path / "student", *small_student(1), "card")
    finally:
        os.umask(before)
    files = [path for path in (tmp_path / "student").rglob("*") if path.is_file()]
    assert len(files) == 5
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask}


def test_the_card_counts_held_out_rows_that_all_teachers_have_embedded(tmp_path: Path) -> None:
    """As training scores them: a further teacher may fail on rows of its own."""
    stored = [
        make_store(tmp_path / name, train=(5,), val=(4, 3), rows_per_shard=12, failed=failed).first
        for name, failed in (("a", (5,)), ("b", (6, 9, 10, 11)))
    ]
    stored[1].name = "second"
    student = build_encoder(student_folder(tmp_path / "x", "test_efficientnet"), SCRATCH, PATCH_PX)
    options = train_config("x").for_card()
    facts = card_facts(ChosenTeachers(tuple(stored), (0.5, 0.5)), {}, student, options, np.arange(5), 1)["store"]
    assert (facts["val_rows"], facts["val_slides"], facts["val_cases"]) == (2, 1, "1")


def test_the_card_says_what_it_was_made_from(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(5, 3), val=(4,), rows_per_shard=6, failed=(0,))
    student = build_encoder(student_folder(tmp_path / "x", "test_efficientnet"), SCRATCH, PATCH_PX)
    before, after = ({"rows": 4, "loss": a, "cka": a / 2} for a in (0.25, 0.125))
    teachers, options = choose_teachers(store, None, None), train_config("x", lr=0.123).for_card()
    facts = card_facts(teachers, {ONLY: (before, after)}, student, options, store.first.ok_rows(0), 17)
    card = model_card(facts)
    for expected in (
        "7 patches (slides: 2, cases: 2)",
        "Held out: 4 patches (slides: 1, cases: 1)",
        "The split is by case",
        f"Plan {store.plan.hash}",
        f"store content {store.first.content_hash()}",
        "17 steps",
        "| loss | 0.2500 | 0.1250 |",
        "| CKA, plain | 0.1250 | 0.0625 |",
        '"lr": 0.123',
        "Teacher: Test-1.0",
        f"{student.num_params / 1e6:.1%} of the teacher's 1.00 M",
    ):
        assert expected in card
    assert "On 4 patches that were not trained on" in figures_table(before, after)
    nothing = {"teachers": [facts["teachers"][0] | {"fidelity_before": None, "fidelity_after": None}]}
    assert "No rows were held out" in model_card(facts | nothing)
    assert "One row was held out, too few to be scored: nothing is known" in figures_table(None, None, 1)
    assert "One row was held out" in model_card(facts | nothing | {"store": facts["store"] | {"val_rows": 1}})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    return train_once(tmp_path_factory.mktemp("trained"), loss="mse") / "run"


def train_further(student: Path) -> None:
    """Move one weight, as a training by another program does."""
    weights = safetensors.torch.load_file(student / "model.safetensors")
    next(iter(weights.values())).add_(0.1)
    safetensors.torch.save_file(weights, student / "model.safetensors")


def edit_config(student: Path, **changes: Any) -> None:
    config = json.loads((student / "config.json").read_text())
    for name, value in changes.items():
        (config if name in config else config["pretrained_cfg"])[name] = value
    (student / "config.json").write_text(json.dumps(config))


def test_a_student_that_was_trained_further_is_told(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = Path(shutil.copytree(trained / "student", tmp_path / "tuned"))
    name_model(str(student), None).build()
    assert load_student(student).transform.mpp == 0.5
    assert capsys.readouterr().err == ""
    train_further(student)
    built = name_model(str(student), None).build()
    warned = capsys.readouterr().err
    assert warned.startswith(f"warning: {student} is not as it was exported: its weights (SHA-256 ")
    assert f"{built.weights_sha256[:12]}, not {read_student_json(student).encoder.weights_sha256[:12]}" in warned  # type: ignore[index]
    assert find_start(str(student)).changed(built) == warned.strip()
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    train_further(run / "student")
    assert "its weights (SHA-256 " in find_start(str(run)).changed(built)
    assert find_start(SCRATCH).changed(built) == ""


def test_a_student_built_for_patches_of_another_side_is_the_same(trained: Path) -> None:
    student = trained / "student"
    named = replace(name_model(str(student), None), patch_px=2 * PATCH_PX)
    assert changed_since_export(student, named.build()) == ""


def test_a_student_built_for_patches_of_another_side_is_told_if_it_was_trained_further(
    trained: Path, tmp_path: Path
) -> None:
    student = Path(shutil.copytree(trained / "student", tmp_path / "tuned"))
    train_further(student)
    named = replace(name_model(str(student), None), patch_px=2 * PATCH_PX)
    assert "its weights (SHA-256 " in changed_since_export(student, named.build())


def test_weights_that_fill_the_model_under_other_names_are_the_same(trained: Path, tmp_path: Path) -> None:
    """As after a change of names in timm: only the file can say that it is the one that was written."""
    student = Path(shutil.copytree(trained / "student", tmp_path / "student"))
    renamed = replace(name_model(str(student), None).build(), weights_sha256="0" * 64)
    assert changed_since_export(student, renamed) == ""
    (student / "model.safetensors").unlink()
    assert "its weights (SHA-256 000000000000, not " in changed_since_export(student, renamed)


def test_a_class_token_that_timm_saved_again_is_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm keeps the class token as its pooling, but not our word for it; without that pooling it is another output."""
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", SPECS)
    built, student = build_encoder("tiny-swiglu", SCRATCH, 42), tmp_path / "student"
    write_exported(student, built.module.model, built.spec, random_projector(built.spec.width))
    save_for_hf(timm.create_model(f"local-dir:{student}", pretrained=True), str(student), safe_serialization=True)
    assert "embedding" not in json.loads((student / "config.json").read_text())
    again = build_encoder(f"local-dir:{student}", "pretrained", 42)
    assert changed_since_export(student, again) == ""
    averaged = replace(again.spec, arguments=again.spec.arguments | {"global_pool": "avg"})
    assert "embedding pooled, not cls" in changed_since_export(student, replace(again, spec=averaged))


def test_a_students_edited_description_is_told(trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    student = Path(shutil.copytree(trained / "student", tmp_path / "edited"))
    edit_config(student, mpp=1.0, mean=[0.5, 0.25, 0.5])
    with caplog.at_level("WARNING", "g2l"):
        loaded = load_student(student)
    assert "mean 0.5, 0.25, 0.5, not " in caplog.text
    assert "; mpp 1.0, not 0.5. It is used as it is; its projectors" in caplog.text
    assert (loaded.transform.mpp, loaded.transform.mean) == (1.0, (0.5, 0.25, 0.5))


def test_a_resolution_that_timm_did_not_save_is_that_of_the_student(trained: Path, tmp_path: Path) -> None:
    student = Path(shutil.copytree(trained / "student", tmp_path / "saved"))
    config = json.loads((student / "config.json").read_text())
    del config["mpp"]
    (student / "config.json").write_text(json.dumps(config))
    assert stated_mpp(student) == 0.5
    assert changed_since_export(student, name_model(str(student), None).build()) == ""
    (student / "student.json").unlink()
    assert stated_mpp(student) is None
    assert changed_since_export(student, build_encoder(f"local-dir:{student}", "pretrained", PATCH_PX)) == ""
