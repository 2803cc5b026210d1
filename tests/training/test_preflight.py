"""The preflight: what it measures is so, what is wrong stops before anything is written, what is doubtful is said."""

import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from support.commands import call_g2l
from support.extraction import (
    FURTHER,
    PATCH_PX,
    TEACHER,
    array_files,
    extract,
    plan_cohort,
    reference_model,
    write_cohort,
    write_teacher,
)
from support.pixels import noise
from support.stores import make_store

from pipeline.base.errors import ConfigError, EncoderError
from pipeline.base.memory import peak_bytes
from pipeline.cohort.plan import Plan
from pipeline.cohort.plan_hdf5 import write_plan
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.build import BuiltEncoder, build_encoder
from pipeline.encoders.table import EncoderSpec
from pipeline.store.create import open_round
from pipeline.store.format import Status
from pipeline.store.parts.part import StorePart
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store, StoredTeacher
from pipeline.training.preflight import (
    MAX_READS,
    MIN_COSINE,
    NUM_PATCHES,
    TeacherWork,
    check_encoder,
    measure_batch,
    read_some_patches,
    teacher_estimate,
)
from stages.extracting.prepare import prepare_store
from stages.extracting.teacher import RunningTeacher

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return plan_cohort(write_cohort(tmp_path_factory.mktemp("preflight")))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, plan: Plan, weights: Path) -> Path:
    """A store of an undisturbed run; shared, not changed."""
    return extract(plan, tmp_path_factory.mktemp("whole") / "s.zarr", weights, dtype="float32").store.folder


@pytest.fixture
def built(weights: Path) -> BuiltEncoder:
    return build_encoder(TEACHER, weights, PATCH_PX)


@pytest.fixture(scope="module")
def patches() -> NDArray[np.uint8]:
    return noise(NUM_PATCHES, PATCH_PX, PATCH_PX, 3, seed=1)


def check(built: BuiltEncoder, patches: NDArray[np.uint8], **options: Any) -> Any:
    values = {"device": CPU, "precision": "float32", "batch_size": 4, "dtype": "float16"} | options
    return check_encoder(built, patches, len(patches), **values)


def change_forward(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    """Let encoders give `change(embeddings)`."""

    def forward(self: Any, patches: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = change(self.embed(self.normalise(patches)).clone())
        return output

    monkeypatch.setattr("pipeline.encoders.build.Encoder.forward", forward)


def test_the_store_says_what_was_found(whole: Path, weights: Path, built: BuiltEncoder) -> None:
    found = Store(whole).first.attributes["preflight"]
    assert found["file_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    assert found["weights_sha256"] == built.weights_sha256
    assert (found["architecture"], found["width"], found["num_params"]) == (TEACHER, 96, built.num_params)
    assert (found["num_patches"], found["num_planned"]) == (NUM_PATCHES, NUM_PATCHES)
    assert (found["precision"], found["precision_cosine"]) == ("float32", None)
    assert found["batch_measure"] == "tensors alive at once"
    assert found["batch_cosine"] > 0.99999
    assert found["weights_bytes"] == 4 * built.num_params
    assert found["warnings"] == []
    stored = Store(whole).first.read_embeddings(0)[:NUM_PATCHES]  # the first rows of the plan are what it looked at
    assert found["largest"] == pytest.approx(np.abs(stored).max(), rel=1e-4)


def test_the_cosine_with_float32_is_that_of_timms_own_model(
    built: BuiltEncoder, patches: NDArray[np.uint8], weights: Path
) -> None:
    found = check(built, patches, precision="bfloat16")
    model, spec = reference_model(TEACHER, weights), built.spec
    images = torch.from_numpy(patches).permute(0, 3, 1, 2) / 255
    images = ((images - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(spec.std).view(3, 1, 1)).contiguous()
    with torch.inference_mode():
        exact = model(images).double().numpy()
        with torch.autocast("cpu", torch.bfloat16):
            rough = model(images).double().numpy()
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rough, axis=1)
    expected = ((exact * rough).sum(axis=1) / norms).min()
    assert 0.99 < expected < 0.999999
    assert found.precision_cosine == pytest.approx(expected, abs=(1 - expected) / 2)
    assert bool(found.warnings()) == (found.precision_cosine < MIN_COSINE)


def test_a_doubtful_arithmetic_is_a_warning_and_the_run_goes_on(
    tmp_path: Path, plan: Plan, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rough(output: torch.Tensor) -> torch.Tensor:
        return output.flip(1) if torch.is_autocast_enabled("cpu") else output

    change_forward(monkeypatch, rough)
    done = extract(plan, tmp_path / "s.zarr", weights, precision="bfloat16")
    assert done.counts["OK"] == plan.num_rows
    (warning,) = done.teacher.attributes["preflight"]["warnings"]
    assert "embeddings in bfloat16 differ from those in float32: smallest cosine 0." in warning
    assert f"warning: preflight: {warning}" in capsys.readouterr().err


def test_embeddings_that_depend_on_their_neighbours_are_a_warning(
    built: BuiltEncoder, patches: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check(built, patches).warnings() == []
    change_forward(monkeypatch, lambda output: output + output.mean(0))
    found = check(built, patches)
    (warning,) = found.warnings()
    assert "alone and the same patch in a batch differ" in warning
    assert found.batch_difference > 0.001 * found.largest


@pytest.mark.parametrize(
    ("value", "dtype", "words"),
    [
        (float("nan"), "float32", "1 of 8 embeddings of test_resnet in float32 are not finite"),
        (float("inf"), "float16", "are not finite"),
        (1e6, "float16", r"reach 1e\+06, more than float16 holds \(6.55e\+04\). Use --dtype float32"),
    ],
)
def test_what_no_run_can_use_stops_before_anything_is_written(
    tmp_path: Path, plan: Plan, weights: Path, monkeypatch: pytest.MonkeyPatch, value: float, dtype: str, words: str
) -> None:
    def spoil(output: torch.Tensor) -> torch.Tensor:
        output[:1, 7] = value
        return output

    change_forward(monkeypatch, spoil)
    with pytest.raises(EncoderError, match=words):
        extract(plan, tmp_path / "s.zarr", weights, dtype=dtype)
    assert list(tmp_path.iterdir()) == []
    extract(plan, tmp_path / "s.zarr", weights, dtype=dtype, preflight=False)
    assert "preflight" not in Store(tmp_path / "s.zarr").first.attributes


def test_another_width_stops(built: BuiltEncoder, patches: NDArray[np.uint8]) -> None:
    with pytest.raises(EncoderError, match=r"test_resnet gives \(8, 96\), not \(N, 95\)"):
        check(replace(built, spec=replace(built.spec, width=95)), patches)


def test_rows_that_cannot_be_read_are_made_up_for() -> None:
    asked = []

    def read(row: int, out: NDArray[np.uint8]) -> PatchRead:
        asked.append(row)
        if row % 20:
            return PatchRead(Status.UNREADABLE)
        out[:] = row
        return PatchRead(Status.OK)

    patches, num_planned = read_some_patches(read, range(1000), 16)
    assert asked == list(range(MAX_READS))
    assert num_planned == 4
    assert [int(patch.min()) for patch in patches[:4]] == [0, 20, 40, 60]
    assert len({patch.tobytes() for patch in patches}) == NUM_PATCHES
    patches, num_planned = read_some_patches(lambda row, out: PatchRead(Status.OK), range(3), 16)
    assert num_planned == 3


def test_a_continued_store_keeps_its_record_to_the_byte(
    tmp_path: Path,
    plan: Plan,
    weights: Path,
    whole: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "s.zarr"))
    Store(out).first.ledger.path(1).unlink()
    monkeypatch.setattr("pipeline.training.preflight.describe_device", lambda device: "another machine")
    extract(plan, out, weights, dtype="float32")
    assert "preflight: test_resnet" in capsys.readouterr().err  # it is looked at again, on what may be another machine
    assert (out / "zarr.json").read_bytes() == (whole / "zarr.json").read_bytes()
    assert array_files(out) == array_files(whole)
    extract(plan, out, weights, dtype="float32")
    assert "preflight" not in capsys.readouterr().err  # nothing is left to do


@pytest.mark.slow
def test_the_command_says_it_and_can_leave_it(tmp_path: Path, plan: Plan, weights: Path) -> None:
    write_plan(plan, tmp_path / "plan.h5")
    command = ["extract-teacher", tmp_path / "plan.h5", "--teacher", TEACHER, "--weights", weights, "--device", "cpu"]
    code, _, said = call_g2l(*command, "--out", tmp_path / "a.zarr")
    assert code == 0
    assert "gives 96 dimensions; 8 patches of the plan" in said
    assert re.search(r"a batch of 24: [\d.]+ MB \(tensors alive at once\)", said)
    code, _, said = call_g2l(*command, "--no-preflight", "--out", tmp_path / "b.zarr")
    assert (code, "preflight" in said) == (0, False)
    assert "preflight  nothing doubtful" in call_g2l("inspect", tmp_path / "a.zarr")[1]
    assert call_g2l("verify", tmp_path / "a.zarr", "--weights", weights, "--device", "cpu")[0] == 0


class Relu(torch.nn.Module):
    """Mean of the channels after ReLU: the tensors that are alive at once can be counted by hand."""

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        return patches.float().relu().mean((1, 2))


def test_the_memory_of_a_batch_on_a_cpu_is_that_of_its_tensors(built: BuiltEncoder) -> None:
    by_hand: Any = Relu()
    patch = PATCH_PX * PATCH_PX * 3
    for size in (1, 8):
        assert measure_batch(by_hand, PATCH_PX, size, CPU, "float32") == size * (patch + 4 * patch + 4 * patch)
    few, many = (measure_batch(built.module, PATCH_PX, size, CPU, "float32") for size in (8, 32))
    assert 8 * patch * 5 < few < many == 4 * few
    weights = sum(t.numel() * t.element_size() for t in (*built.module.parameters(), *built.module.buffers()))
    whole = peak_bytes(built.module, torch.zeros((32, PATCH_PX, PATCH_PX, 3), dtype=torch.uint8), "float32") - weights
    assert whole <= many <= 1.01 * whole


def test_a_batch_that_a_cpu_has_no_room_for_stops(built: BuiltEncoder) -> None:
    with pytest.raises(ConfigError, match="has no room for batches of 100000000000 patches"):
        measure_batch(built.module, PATCH_PX, 10**11, CPU, "float32")


def test_a_cpu_has_room_for_all_batches_that_it_computes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured and recorded is still one batch."""
    by_hand: Any = Relu()
    one = measure_batch(by_hand, PATCH_PX, 8, CPU, "float32")
    monkeypatch.setattr("pipeline.training.preflight.batches_at_once", lambda _: 8)
    monkeypatch.setattr("pipeline.training.preflight.free_memory_bytes", lambda: 8 * one)
    assert measure_batch(by_hand, PATCH_PX, 8, CPU, "float32") == one
    monkeypatch.setattr("pipeline.training.preflight.free_memory_bytes", lambda: 8 * one - 1)
    with pytest.raises(ConfigError, match=r"no room for the 8 batches of 8 patches that it computes at once\. .*OMP_"):
        measure_batch(by_hand, PATCH_PX, 8, CPU, "float32")


def test_the_memory_of_batches_at_once_is_told(built: BuiltEncoder, patches: NDArray[np.uint8]) -> None:
    checked = replace(check(built, patches), batch_bytes=10_000_000)
    assert checked.words().endswith("a batch of 4: 10.0 MB (tensors alive at once)")
    assert checked.words(8).endswith("a batch of 4: 10.0 MB (tensors alive at once), 8 of them at once: 80.0 MB")


def test_a_teacher_in_a_folder_has_its_file_s_hash_recorded(tmp_path: Path, plan: Plan) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    write_teacher(folder / "model.safetensors", num_classes=0)
    (folder / "config.json").write_text(json.dumps({"architecture": TEACHER, "num_classes": 0}))
    found = extract(plan, tmp_path / "s.zarr", None, teacher=f"local-dir:{folder}").teacher.attributes["preflight"]
    assert found["file_sha256"] == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_store_of_a_page_of_the_table_is_continued_under_that_name(
    tmp_path: Path, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = EncoderSpec("tiny", "hf-hub:owner/tiny", "test_vit", {"img_size": 64}, "cls", patch_px=64, params_m=0.4)
    monkeypatch.setattr("pipeline.encoders.table.ENCODERS", {"tiny": spec})
    weights = write_teacher(tmp_path / "w.safetensors", "test_vit", img_size=64)
    options: dict[str, Any] = {"teacher": "hf-hub:owner/tiny", "dtype": "float32"}
    whole = extract(plan, tmp_path / "whole.zarr", weights, **options).store
    assert (whole.first.spec.teacher["name"], whole.first.spec.teacher["embedding"]) == ("hf-hub:owner/tiny", "cls")
    out = Path(shutil.copytree(whole.folder, tmp_path / "s.zarr"))
    Store(out).first.ledger.path(1).unlink()
    assert extract(plan, out, weights, **options).num_new_rows == 8
    assert array_files(out) == array_files(whole.folder)
    assert extract(plan, out, weights, **options).num_new_rows == 0


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_larger_batch_takes_more_memory(built: BuiltEncoder, patches: NDArray[np.uint8]) -> None:
    built.module.to("cuda")
    few, many = (check(built, patches, device=torch.device("cuda"), batch_size=size) for size in (8, 64))
    assert 0 < few.batch_bytes < many.batch_bytes


def test_the_reference_is_full_float32(
    built: BuiltEncoder, patches: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch allows TensorFloat-32 in convolutions by itself; what is measured against must not have it."""
    allowed: list[bool] = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    built.module.register_forward_pre_hook(lambda *_: allowed.append(torch.backends.cudnn.allow_tf32))
    check(built, patches, precision="bfloat16")
    assert allowed[:2] == [False, True]


def test_the_teachers_time_is_told_before_the_run() -> None:
    assert teacher_estimate(0.02, TeacherWork(180_000, 180_000)) == (
        "estimate: the teacher alone takes about 1 h 00 min for 180,000 rows (20 ms a patch, measured now); reading "
        "goes on beside it"
    )
    views = TeacherWork(90_000, 90_000, num_views=4)
    assert "2 h 00 min for 90,000 rows and 4 views of each (20 ms" in teacher_estimate(0.02, views)
    assert "(1,500 ms a patch, measured now)" in teacher_estimate(1.5, views)  # a large teacher on a CPU
    some = TeacherWork(360_000, 180_000)
    assert "1 h 00 min for 180,000 of 360,000 rows (20 ms" in teacher_estimate(0.02, some)
    rounds = TeacherWork(60_000, 60_000, num_rounds=2, num_rows_of_rounds=120_000)
    assert "1 h 00 min for 60,000 rows, then for 120,000 in 2 rounds of views (20 ms" in teacher_estimate(0.02, rounds)


def test_what_is_left_is_counted_by_the_ledgers(tmp_path: Path) -> None:
    """64 rows in 4 shards; of view 1 a shard is done, and view 2 is not begun."""
    first = make_store(tmp_path / "s.zarr").first
    settings = first.settings
    assert TeacherWork.left(64, settings | {"views": 5}, None, None, 1) == TeacherWork(64, 64, 5)
    assert TeacherWork.left(64, settings, None, StorePart(2, 3), 1) == TeacherWork(64, 16)
    assert TeacherWork.left(64, settings, None, None, 4) == TeacherWork(64, 64, 1, 3, 3 * 64)
    made, entry = open_round(first, first.plan, 1, {"views_seed": 0}, {}), first.ledger.read(0)
    assert entry is not None
    made.ledger.write(0, entry)
    first.ledger.forget(3)
    assert TeacherWork.left(64, settings, first, None, 1) == TeacherWork(64, 16)
    assert TeacherWork.left(64, settings, first, None, 3) == TeacherWork(64, 16, 1, 2, 48 + 64)
    for shard in (1, 2, 3):
        made.ledger.write(shard, entry)
    assert TeacherWork.left(64, settings, first, None, 3) == TeacherWork(64, 16, 1, 1, 64)


def test_each_call_tells_the_time_of_its_own_rows(
    tmp_path: Path, plan: Plan, whole: Path, built: BuiltEncoder, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 rows in 3 shards: all, a part, views, rounds of views, a continued store, a further teacher."""
    works: list[TeacherWork] = []

    def look(*arguments: Any, **_: Any) -> dict[str, Any]:
        works.extend(each for each in arguments if isinstance(each, TeacherWork))
        return {}

    def prepare(out: Path, encoder: BuiltEncoder = built, **options: Any) -> StoredTeacher:
        chosen = {"dtype": "float32", "rows_per_shard": 8, "batch_size": 4} | options
        config = ExtractConfig.build({"teacher": encoder.spec.name, "weights": weights} | chosen)
        return prepare_store(plan, out, config, RunningTeacher(encoder, CPU, "float32"))

    monkeypatch.setattr("stages.extracting.prepare.look_at_teacher", look)
    begun = Path(shutil.copytree(whole, tmp_path / "begun"))
    Store(begun).first.ledger.forget(1)
    for name, options in (("all", {}), ("part", {"part": "2/2"}), ("views", {"views": 3, "views_strength": "paper"})):
        prepare(tmp_path / name, **options)
    prepare(tmp_path / "rounds", views=3, views_strength="paper", views_per_epoch="fresh")
    prepare(begun)
    prepare(Path(shutil.copytree(whole, tmp_path / "further")), build_encoder(FURTHER, "scratch", PATCH_PX))
    assert works == [
        TeacherWork(24, 24),
        TeacherWork(24, 16),
        TeacherWork(24, 24, 3),
        TeacherWork(24, 24, 1, 2, 48),
        TeacherWork(24, 8),
        TeacherWork(24, 24),
    ]
