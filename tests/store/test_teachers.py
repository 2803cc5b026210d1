"""Several teachers in one store: a further one changes no byte of the first, and a student learns from both."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from support.commands import call_g2l, leftovers
from support.extraction import (
    FURTHER,
    TEACHER,
    extract,
    plan_cohort,
    reference_model,
    spoiling,
    store_files,
    write_store_for_two,
    write_teacher,
)
from support.stores import TEACHER as MADE_UP
from support.stores import dropping_cnn, make_patches, make_store, plain_vit, run_files, train_config

from pipeline.base.errors import ConfigError, EncoderError, G2LError, StoreError
from pipeline.base.versions import versions
from pipeline.cohort.plan import Plan
from pipeline.config.base import read_options
from pipeline.config.model_names import SCRATCH
from pipeline.disk.asides import ASIDE_SUFFIX
from pipeline.encoders.build import build_encoder
from pipeline.sampling import TRAIN
from pipeline.store.create import open_further
from pipeline.store.format import Status, StoreSpec
from pipeline.store.patches import PatchRead
from pipeline.store.store import Store
from pipeline.store.teachers import choose_teachers
from pipeline.store.writer import StoreWriter
from pipeline.student.folder import load_projector
from pipeline.training.rows.choice import choose_rows
from pipeline.training.rows.reading import StoredRows
from pipeline.training.rows.statistics import teacher_statistics
from pipeline.training.run_folder import RunFolder
from stages.export import export_student
from stages.inspect import inspect_path
from stages.reports.train import train_report
from stages.train_student import train_student
from stages.verify import verify_store

WIDTH = 7


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store_for_two(tmp_path_factory.mktemp("teachers"))


@pytest.fixture(scope="module")
def plan(root: Path) -> Plan:
    return Store(root / "store.zarr").plan


@pytest.fixture(scope="module")
def both(root: Path, plan: Plan) -> Path:
    """A store of two teachers; shared, not changed."""
    out = Path(shutil.copytree(root / "store.zarr", root / "both.zarr"))
    extract(plan, out, root / "further.safetensors", teacher=FURTHER)
    return out


def add_teacher(store: Store, *, failed: tuple[int, ...] = (), shards: int | None = None) -> Store:
    """Add made-up embeddings of a further teacher to a store of `make_store`."""
    record = MADE_UP.record() | {
        "name": "second",
        "width": WIDTH,
        "patch_px": store.patch_px,
        "weights": "test",
        "weights_sha256": "2" * 64,
        "num_params": 2,
        "licence": "second-licence",
    }
    settings = {"rows_per_shard": 10, "pixels": "none", "dtype": "float32", "precision": "float32", "batch_size": 10}
    further = open_further(store, store.plan, StoreSpec(record, settings), versions())
    flat = make_patches(store.num_rows).reshape(store.num_rows, -1, 3).mean(1) / 255
    embeddings = np.tanh(flat @ np.random.default_rng(7).normal(size=(3, WIDTH))).astype(np.float32)
    with StoreWriter(further, lambda row: {"row": row, "slide_id": "?", "x": 0, "y": 0}, "test") as writer:
        for shard in range(further.num_shards if shards is None else shards):
            rows = further.ledger.rows(shard)
            reads = [PatchRead(Status.UNREADABLE if row in failed else Status.OK, reason="test") for row in rows]
            writer.put(rows, embeddings[rows.start : rows.stop], reads)
    return Store(store.folder)


# --- extraction --------------------------------------------------------------------------------------------------


def test_a_further_teacher_changes_no_byte_of_the_first(root: Path, both: Path) -> None:
    first, now = store_files(root / "store.zarr"), store_files(both)
    assert {name: now[name] for name in first} == first
    new = now.keys() - first.keys()
    assert all(name.startswith("teachers/") for name in new)
    assert not any("pixels" in name for name in new)
    assert Store(both).first.content_hash() == Store(root / "store.zarr").first.content_hash()
    assert leftovers(both) == []


def test_a_further_teacher_takes_over_shards_and_pixels(both: Path) -> None:
    store = Store(both)
    assert store.first.inherited == {}
    assert store.teacher(FURTHER).inherited == {"rows_per_shard": 8, "pixels": "jpegxl"}


def test_the_further_embeddings_are_timms_of_the_stored_pixels(root: Path, both: Path) -> None:
    group: Any = zarr.open_group(str(both), mode="r")
    found = group[f"teachers/{FURTHER}/embedding"][:]
    model = reference_model(FURTHER, root / "further.safetensors")
    config = model.pretrained_cfg
    mean, std = (torch.tensor(config[name]) for name in ("mean", "std"))
    pixels = torch.from_numpy(group["pixels"][:]) / 255
    with torch.inference_mode():
        expected = model(((pixels - mean) / std).permute(0, 3, 1, 2)).numpy()
    assert found.shape == expected.shape == (24, model.num_features)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)
    assert (group[f"teachers/{FURTHER}/status"][:] == Status.OK).all()


def test_a_store_without_pixels_is_embedded_from_its_slides(tmp_path: Path, root: Path, plan: Plan, both: Path) -> None:
    for name, weights in ((TEACHER, "first"), (FURTHER, "further")):
        extract(
            plan,
            tmp_path / "s.zarr",
            root / f"{weights}.safetensors",
            teacher=name,
            pixels="none",
            slides_root=root / "gone",
        )
    further, expected = (Store(path).teacher(FURTHER) for path in (tmp_path / "s.zarr", both))
    assert np.array_equal(further.read_embeddings(1), expected.read_embeddings(1))
    further.ledger.path(1).unlink()
    with pytest.raises(ConfigError, match="none of the 2 planned slides is there"):
        extract(plan, tmp_path / "s.zarr", root / "further.safetensors", teacher=FURTHER, pixels="none")


@pytest.mark.slow
def test_rows_that_the_first_could_not_read_fail_until_both_are_done_again(
    tmp_path: Path, root: Path, plan: Plan, both: Path
) -> None:
    slides = Path(shutil.copytree(root / "gone", tmp_path / "slides"))
    (slides / "s1.svs").rename(tmp_path / "s1.svs")
    out = tmp_path / "s.zarr"
    options: dict[str, Any] = {"slides_root": slides}
    first = extract(plan, out, root / "first.safetensors", **options)
    listed = (out / "failures.csv").read_bytes()
    (out / "failures.csv").unlink()  # as if killed after its last shard
    (out / "config.toml").with_suffix(ASIDE_SUFFIX).touch()
    further = extract(plan, out, root / "further.safetensors", teacher=FURTHER, **options)
    assert (out / "failures.csv").read_bytes() == listed
    assert leftovers(out) == []
    assert first.counts == further.counts == {**dict.fromkeys(first.counts, 0), "OK": 12, "NO_SLIDE": 12}
    assert further.teacher.ledger.failures()[0] == first.teacher.ledger.failures()[0]
    assert "s1.svs" in (further.teacher.folder / "failures.csv").read_text()
    (tmp_path / "s1.svs").rename(slides / "s1.svs")
    again = extract(plan, out, root / "further.safetensors", teacher=FURTHER, retry_failures=True, **options)
    assert again.num_new_rows == 0  # the store has no pixels of them yet
    extract(plan, out, root / "first.safetensors", retry_failures=True, **options)
    done = extract(plan, out, root / "further.safetensors", teacher=FURTHER, retry_failures=True, **options)
    assert done.num_failed == 0
    arrays = [{name: data for name, data in store_files(path).items() if "/c/" in name} for path in (out, both)]
    assert arrays[0] == arrays[1]


@pytest.mark.slow
def test_wrong_uses_are_told(tmp_path: Path, root: Path, plan: Plan, both: Path) -> None:
    out = Path(shutil.copytree(both, tmp_path / "s.zarr"))
    before = store_files(out)
    further = root / "further.safetensors"
    other_plan = plan_cohort(root / "gone" / "manifest.csv", seed=5)
    weights = write_teacher(tmp_path / "other.safetensors", FURTHER, seed=9)
    cases: list[tuple[Plan, Path, dict[str, Any], str]] = [
        (plan, weights, {"teacher": FURTHER}, "teacher.weights_sha256"),
        (plan, further, {"teacher": FURTHER, "dtype": "float32"}, r"settings.dtype: 'float16' -> 'float32'"),
        (plan, further, {"teacher": FURTHER, "pixels": "jpeg"}, "keeps pixels as jpegxl"),
        (plan, further, {"teacher": f"{FURTHER}.r160_in1k"}, f"these weights already, of the teacher {FURTHER}"),
        (other_plan, further, {"teacher": FURTHER}, "plan_hash"),
    ]
    for with_plan, with_weights, options, words in cases:
        with pytest.raises(G2LError, match=words):
            extract(with_plan, out, with_weights, **options)
    assert store_files(out) == before
    Store(out).first.ledger.path(0).unlink()
    with pytest.raises(StoreError, match="finish the store: then it takes a further teacher"):
        extract(
            plan,
            out,
            write_teacher(tmp_path / "v.safetensors", "test_convnext"),
            teacher="test_convnext",
            slides_root=root / "gone",
        )


# --- the preflight of a further teacher ------------------------------------------------------------------------------


@pytest.mark.parametrize("views", [None, 3])
def test_the_preflight_of_a_further_teacher_is_recorded(
    tmp_path: Path, root: Path, views: int | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is of the stored pixels, for the slides are not where they were."""
    out = Path(shutil.copytree(root / "store.zarr", tmp_path / "s.zarr"))
    extract(Store(out).plan, out, root / "further.safetensors", teacher=FURTHER, dtype="float32", views=views)
    assert "8 patches of the plan\n" in capsys.readouterr().err
    group: Any = zarr.open_group(str(out), mode="r")
    found = group[f"teachers/{FURTHER}"].attrs["g2l"]["preflight"]
    data = (root / "further.safetensors").read_bytes()
    assert found["file_sha256"] == hashlib.sha256(data).hexdigest()
    assert (found["encoder"], found["num_planned"], found["warnings"]) == (FURTHER, 8, [])
    stored = group[f"teachers/{FURTHER}/embedding"][:8]  # the first rows are what it looked at
    assert found["largest"] == pytest.approx(np.abs(stored).max(), rel=1e-4)
    own = group.attrs["g2l"]["preflight"]
    assert own["encoder"] == TEACHER
    assert inspect_path(out).count("nothing doubtful") == 2
    assert verify_store(out, root / "further.safetensors", 8, "cpu", teacher=FURTHER)[1] == 0


def test_the_preflight_of_a_further_teacher_reads_slides_where_the_store_has_no_pixels(
    tmp_path: Path, root: Path, plan: Plan, both: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"pixels": "none", "slides_root": root / "gone"}
    extract(plan, tmp_path / "s.zarr", root / "first.safetensors", **options)
    capsys.readouterr()
    done = extract(plan, tmp_path / "s.zarr", root / "further.safetensors", teacher=FURTHER, **options)
    assert done.teacher.attributes["preflight"] == Store(both).teacher(FURTHER).attributes["preflight"]
    assert "8 patches of the plan\n" in capsys.readouterr().err


@pytest.mark.parametrize("views", [None, 3])
def test_a_further_teacher_that_gives_nan_stops_before_anything_is_written(
    tmp_path: Path, root: Path, plan: Plan, views: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(root / "store.zarr", tmp_path / "s.zarr"))
    before = store_files(out)
    monkeypatch.setattr("pipeline.encoders.build.Encoder.forward", spoiling(slice(1), float("nan")))
    options: dict[str, Any] = {"teacher": FURTHER, "views": views}
    with pytest.raises(EncoderError, match=f"1 of 8 embeddings of {FURTHER} in float32 are not finite"):
        extract(plan, out, root / "further.safetensors", **options)
    assert store_files(out) == before
    assert not (out / "teachers").exists()
    done = extract(plan, out, root / "further.safetensors", preflight=False, **options)
    assert "preflight" not in done.teacher.attributes
    assert done.counts["NOT_FINITE"] == 6  # the first row of each batch of four


@pytest.mark.slow
@pytest.mark.parametrize("views", [None, 3])
def test_a_continued_further_teacher_has_the_same_bytes(
    tmp_path: Path,
    root: Path,
    plan: Plan,
    views: int | None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(shutil.copytree(root / "store.zarr", tmp_path / "s.zarr"))
    options: dict[str, Any] = {"teacher": FURTHER, "views": views}
    further = extract(plan, out, root / "further.safetensors", **options).teacher
    before = store_files(out)
    further.ledger.path(1).unlink()
    monkeypatch.setattr("pipeline.training.preflight.describe_device", lambda device: "another machine")
    capsys.readouterr()
    assert extract(plan, out, root / "further.safetensors", **options).num_new_rows == 8
    assert f"preflight: {FURTHER}" in capsys.readouterr().err  # said again, but recorded once
    assert store_files(out) == before
    extract(plan, out, root / "further.safetensors", **options)
    assert "preflight" not in capsys.readouterr().err  # nothing is left to do


# --- a store in place of a plan ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_store_is_its_plan(tmp_path: Path, root: Path, both: Path, cnn: str) -> None:
    """A further teacher, the rest of a store, and another store, without the file of the plan and without slides."""
    out = Path(shutil.copytree(root / "store.zarr", tmp_path / "s.zarr"))
    command = ["extract-teacher", out, "--device", "cpu", "--rows-per-shard", 8, "--batch-size", 4]
    further = ["--teacher", FURTHER, "--weights", root / "further.safetensors"]
    code, _, said = call_g2l(*command, "--out", out, *further)
    assert code == 0, said
    found, expected = (
        {name: data for name, data in store_files(path).items() if not name.endswith("config.toml")}
        for path in (out, both)
    )
    assert found == expected
    record = out / "teachers" / FURTHER / "config.toml"
    code, told, said = call_g2l("extract-teacher", "--config", record)
    assert (code, "nothing was left to do" in told) == (0, True), said
    code, _, said = call_g2l(
        "train-student",
        out,
        "--out",
        tmp_path / "run",
        "--student",
        cnn,
        "--weights",
        "scratch",
        "--teacher",
        FURTHER,
        "--teacher",
        TEACHER,
        "--epochs",
        1,
        "--batch-size",
        8,
        "--device",
        "cpu",
        "--workers",
        1,
    )
    assert code == 0, said
    assert inspect_path(tmp_path / "run").count("held-out patches as ") == 2
    other = ["--teacher", TEACHER, "--weights", root / "first.safetensors", "--slides-root", root / "gone"]
    code, _, said = call_g2l(*command, "--out", tmp_path / "t.zarr", *other)
    assert code == 0, said
    names = ("embedding/c/0/0", "pixels/c/2/0/0/0", "plan/zarr.json")
    for name in names:
        assert (tmp_path / "t.zarr" / name).read_bytes() == (out / name).read_bytes()
    Store(out).first.ledger.path(1).unlink()
    code, _, said = call_g2l(*command, "--out", out, *other)
    assert (code, Store(out).first.ledger.pending()) == (0, []), said


def test_a_store_in_place_of_a_plan_used_wrongly_is_told(tmp_path: Path, root: Path) -> None:
    store = root / "store.zarr"
    out = ["--out", tmp_path / "t.zarr", "--teacher", TEACHER, "--device", "cpu"]
    code, _, said = call_g2l("extract-teacher", store, *out, "--patches-per-slide", 3)
    assert (code, f"--patches-per-slide: {store} holds a finished plan" in said) == (1, True), said
    code, _, said = call_g2l("extract-teacher", root, *out)
    assert (code, "A plan is one HDF5 file" in said) == (1, True), said
    code, _, said = call_g2l("extract-teacher", tmp_path / "gone.zarr", *out)
    assert (code, "gone.zarr: no such store" in said) == (1, True), said
    damaged = Path(shutil.copytree(store, tmp_path / "d.zarr"))
    (damaged / "plan" / "zarr.json").write_text("{}")
    code, _, said = call_g2l("extract-teacher", damaged, *out)
    assert (code, str(damaged) in said) == (1, True), said
    assert not (tmp_path / "t.zarr").exists()


# --- verify and inspect ------------------------------------------------------------------------------------------


def test_verify_finds_damage_in_the_further_embeddings(tmp_path: Path, root: Path, both: Path) -> None:
    out = Path(shutil.copytree(both, tmp_path / "s.zarr"))
    further = Store(out).teacher(FURTHER)
    text, code = verify_store(out, root / "further.safetensors", 8, "cpu", teacher=FURTHER)
    assert (code, f"8 rows embedded again by {FURTHER}" in text) == (0, True)
    with pytest.raises(EncoderError, match="not the weights"):
        verify_store(out, write_teacher(tmp_path / "o.safetensors", FURTHER, seed=8), 8, "cpu", teacher=FURTHER)
    with pytest.raises(ConfigError, match=f"has embeddings of {TEACHER}, {FURTHER}"):
        verify_store(out, None, 0, "cpu", teacher="uni")
    path = further.shard_path("embedding", 1)
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    text, code = verify_store(out, None, 0, "cpu")
    assert code == 1
    assert f"further teacher {FURTHER}: 3 of 3 shards are done: DAMAGED" in text
    assert "embedding/c/1/0: its bytes have changed" in text
    assert str(further.folder) in text  # where to delete the ledger entry
    path.write_bytes(whole)
    further.ledger.path(2).unlink()
    assert verify_store(out, None, 0, "cpu")[1] == 3
    (further.folder / "status" / "zarr.json").write_text("{}")
    assert verify_store(out, None, 0, "cpu")[1] == 1


def test_inspect_names_all_teachers(both: Path) -> None:
    text = inspect_path(both)
    assert f"further teacher  {FURTHER}" in text
    assert text.count("24 ok") == 2


# --- training ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A made-up store of two teachers; row 3 failed for the second, row 20 for the first."""
    return add_teacher(make_store(tmp_path_factory.mktemp("two") / "s.zarr", failed=[20]), failed=(3,))


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> str:
    return dropping_cnn(tmp_path_factory.mktemp("source") / "cnn")


def test_usable_rows_and_statistics_are_those_of_all_chosen(two: Store) -> None:
    teachers = choose_teachers(two, ["second", "test-teacher"], [3, 1])
    assert (teachers.names, teachers.weights, teachers.widths) == (
        ["second", "test-teacher"],
        (0.75, 0.25),
        [WIDTH, 12],
    )
    rows = choose_rows(teachers.stored, batch_size=8, val_rows=4, seed=0)
    assert np.array_equal(rows.train, np.setdiff1d(np.arange(48), [3, 20]))
    joined = np.stack(
        [
            StoredRows(teachers.stored, tell=print).read(row, np.empty((32, 32, 3), np.uint8))
            for row in rows.train.tolist()
        ]
    )
    plain: Any = zarr.open_group(str(two.folder), mode="r")
    expected = np.concatenate([plain["teachers/second/embedding"][:], plain["embedding"][:]], axis=1)[rows.train]
    assert np.array_equal(joined, expected)
    for store, columns in zip(teachers.stored, (expected[:, :WIDTH], expected[:, WIDTH:]), strict=True):
        mean, var = teacher_statistics(store, TRAIN, rows.train)
        np.testing.assert_allclose(mean, columns.astype(np.float64).mean(0), rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(var, columns.astype(np.float64).var(0, ddof=1), rtol=1e-12)


@pytest.mark.slow
def test_two_teachers_train_and_export(tmp_path: Path, two: Store, cnn: str) -> None:
    config = train_config(cnn, teacher=["test-teacher", "second"], teacher_weight=[2, 1], epochs=3)
    trained = train_student(two, tmp_path / "run", config)
    vals = [line for line in trained.run.metrics() if line["kind"] == "val"]
    assert [line["teacher"] for line in vals] == ["test-teacher", "second"] * 4
    assert trained.held_out == trained.run.held_out_figures()
    assert list(trained.held_out) == ["test-teacher", "second"]
    for before, after in trained.held_out.values():
        assert after["r2_scaled"] > before["r2_scaled"]
    text = train_report(trained)
    assert "as second" in text
    assert inspect_path(trained.run.folder).count("held-out patches as ") == 2
    export_student(trained.run.folder, tmp_path / "student")
    embedding = torch.randn(3, build_encoder(cnn, SCRATCH, 32).spec.width)
    for teacher, width in (("test-teacher", 12), ("second", WIDTH)):
        projector = load_projector(tmp_path / "student", teacher)
        assert projector.as_teacher(embedding).shape == (3, width)
        mean = teacher_statistics(
            two.teacher(teacher),
            TRAIN,
            choose_rows(list(two.teachers.values()), batch_size=8, val_rows=4, seed=0).train,
        )[0]
        np.testing.assert_allclose(projector.teacher_norm.mean, mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(
        load_projector(tmp_path / "student").linear.weight,
        load_projector(tmp_path / "student", "test-teacher").linear.weight,
    )
    with pytest.raises(EncoderError, match="no projector of a teacher uni; there are those of test-teacher, second"):
        load_projector(tmp_path / "student", "uni")
    card = (tmp_path / "student" / "README.md").read_text()
    for words in (
        "distilled from test-teacher and second",
        "0.3333 of the loss",
        "projector-second.safetensors",
        "### second",
        "second-licence",
    ):
        assert words in card, words
    assert "projector-second.safetensors" in inspect_path(tmp_path / "student")


@pytest.mark.slow
def test_a_chosen_teacher_alone_gives_the_bits_of_a_store_without_the_other(
    tmp_path: Path, two: Store, cnn: str
) -> None:
    lone = make_store(tmp_path / "lone.zarr", failed=[20])
    runs = [
        train_student(store, tmp_path / f"run-{i}", train_config(cnn, **options)).run.folder
        for i, (store, options) in enumerate([(lone, {}), (two, {"teacher": ["test-teacher"]})])
    ]
    assert run_files(runs[0]) == run_files(runs[1])
    assert RunFolder(runs[0]).read_identity() == RunFolder(runs[1]).read_identity()
    add_teacher(lone)  # a run goes on when its store has taken a further teacher since
    assert train_student(lone, runs[0], train_config(cnn, teacher=["test-teacher"])).num_new_steps == 0
    by_name, alone = (load_projector(runs[0] / "student", name).state_dict() for name in ("test-teacher", None))
    assert all(torch.equal(by_name[name], alone[name]) for name in alone)
    with pytest.raises(EncoderError, match="no projector of a teacher second"):
        load_projector(runs[0] / "student", "second")


@pytest.mark.slow
def test_only_ratios_of_weights_count(tmp_path: Path, two: Store) -> None:
    names = ["second", "test-teacher"]
    student = plain_vit(tmp_path / "vit")
    files = [
        run_files(
            train_student(
                two, tmp_path / f"run-{weights}", train_config(student, epochs=1, teacher=names, teacher_weight=weights)
            ).run.folder
        )
        for weights in (None, [5.0, 5.0], [1.0, 4.0])
    ]
    assert files[0] == files[1]
    assert files[0]["student/model.safetensors"] != files[2]["student/model.safetensors"]
    record = read_options(tmp_path / "run-None" / "config.toml", "train-student")
    assert record["store"] == str(two.folder)  # also where the first of the teachers is a further one of the store


@pytest.mark.slow
def test_wrong_choices_are_told(tmp_path: Path, two: Store, cnn: str) -> None:
    run = ["train-student", two.folder, "--student", cnn, "--weights", "scratch", "--out", tmp_path / "run"]
    a, b = ["--teacher", "test-teacher"], ["--teacher", "second"]
    for words, said in (
        ([], "has embeddings of test-teacher, second: say with --teacher which"),
        ([*a, *a], "--teacher test-teacher is given twice"),
        (["--teacher", "uni"], "--teacher uni: "),
        ([*a, *b, "--teacher-weight", 1], "1 weights for 2 teachers"),
        ([*a, "--teacher-weight", 0], "--teacher-weight 0: a weight is a number above 0"),
        ([*a, "--teacher-weight", "nan"], "teacher_weight: Input should be a finite number (got nan)"),
    ):
        code, _, error = call_g2l(*run, *words)
        assert (code, said in error) == (1, True), error
    assert not (tmp_path / "run").exists()
    unfinished = add_teacher(make_store(tmp_path / "u.zarr"), shards=1)
    with pytest.raises(StoreError, match="second is not finished: 6 of 7 shards"):
        train_student(unfinished, tmp_path / "run", train_config(cnn, teacher=["second"]))
    config = train_config(cnn, epochs=1, teacher=["test-teacher", "second"])
    train_student(two, tmp_path / "run", config)
    with pytest.raises(G2LError, match="further_teachers"):
        train_student(two, tmp_path / "run", config.model_copy(update={"teacher_weight": [1.0, 2.0]}))


def test_a_damaged_list_of_projectors_is_told(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"a": "../projector.safetensors"}', '{"a": 1}'):
        (tmp_path / "projectors.json").write_text(text)
        with pytest.raises(EncoderError, match=r"projectors.json: damaged"):
            load_projector(tmp_path, "a")
