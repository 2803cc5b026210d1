"""What an earlier version wrote still opens and goes on, and goes on as that version would have.

Each archive in `tests/earlier/` holds the outputs of one version (`tests/earlier/make.py`). Bytes that no arithmetic
touches must be equal; numbers out of a model may differ in the last digits between processors.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import timm
import torch
from support.commands import leftovers, succeed
from support.earlier import VERSIONS, unpack
from support.extraction import array_files

from pipeline.store.store import Store

CPU = ("--device", "cpu", "--workers", "1")
EXTRACT = ("--rows-per-shard", "8", "--batch-size", "8", "--no-preflight", *CPU)
TRAIN = (
    "train-student",
    "store.zarr",
    "--out",
    "run",
    "--student",
    "local-dir:student",
    "--weights",
    "scratch",
    "--teacher",
    "local-dir:teacher",
    "--teacher",
    "local-dir:second",
    "--epochs",
    "2",
    "--batch-size",
    "4",
    "--checkpoint-every",
    "3",
    "--lr",
    "1e-3",
    *CPU,
)
"""How the archive's run was made."""


@pytest.fixture(params=VERSIONS)
def outputs(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of one version's outputs, which is the working folder, as it was when they were made."""
    unpack(request.param, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_there_is_an_archive() -> None:
    assert {"0.1.0", "0.2.0", "0.2.0-student-json"} <= set(VERSIONS)


def test_the_move_into_rooms_changed_no_byte_and_no_digit(tmp_path: Path) -> None:
    """`0.2.0` was made by the code before the move, `0.2.0-student-json` by the code after it, from the same inputs."""
    before, after = (unpack(version, tmp_path / version) for version in ("0.2.0", "0.2.0-student-json"))
    files = [path for path in before.rglob("*") if path.is_file()]
    exact = [path for path in files if path.suffix in (".pt", ".safetensors") or "/c/" in path.as_posix()]
    exact += [
        *(before / "features").rglob("*.h5"),
        *(before / "report").rglob("*.h5"),
        before / "run" / "metrics.jsonl",
    ]
    assert len(exact) > 40
    names = [path.relative_to(before) for path in exact]
    assert [name for name in names if (before / name).read_bytes() != (after / name).read_bytes()] == []
    first, second = (json.loads((folder / "report" / "report.json").read_text()) for folder in (before, after))
    assert first["sections"] == second["sections"]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_student_without_student_json_is_read_through_its_card_with_a_note(version: str, tmp_path: Path) -> None:
    folder = unpack(version, tmp_path)
    said = succeed("inspect", folder / "exported")
    assert ("has no student.json" in said) == (version != "0.2.0-student-json")


@pytest.mark.parametrize("name", ["plan.h5", "store.zarr", "imported.zarr", "run"])
def test_it_is_inspected(outputs: Path, name: str) -> None:
    assert name in succeed("inspect", name)


@pytest.mark.parametrize(
    "words",
    [("store.zarr",), ("store.zarr", "--teacher", "local-dir:second"), ("imported.zarr",)],
    ids=["teacher", "further", "imported"],
)
def test_a_store_is_verified(outputs: Path, words: tuple[str, ...]) -> None:
    said = succeed("verify", *words, "--device", "cpu")
    assert "again" in said


def test_a_store_that_was_cut_is_continued(outputs: Path) -> None:
    whole = Store(Path("store.zarr"))
    before, shard = array_files(whole.folder), whole.first.num_shards - 1
    kept = whole.first.read_views(shard)
    pixels = [whole.read_pixels(row) for row in whole.first.ledger.rows(shard)]
    for name in ("embedding", "views", "pixels", "status"):
        whole.first.shard_path(name, shard).unlink()
    whole.first.ledger.path(shard).unlink()
    shutil.rmtree("store.zarr/teachers")
    succeed(
        "extract-teacher",
        "plan.h5",
        "--out",
        "store.zarr",
        "--slides-root",
        "slides",
        "--teacher",
        "local-dir:teacher",
        "--views",
        "2",
        *EXTRACT,
    )
    after = array_files(whole.folder)
    assert before.keys() == after.keys()
    # the same pixels, whose lossless code may differ between processors
    assert np.array_equal([Store(whole.folder).read_pixels(row) for row in whole.first.ledger.rows(shard)], pixels)
    exact = [name for name in before if not name.startswith(("embedding/", "views/", f"pixels/c/{shard}/"))]
    assert {name for name in exact if before[name] != after[name]} == set()
    np.testing.assert_allclose(Store(Path("store.zarr")).first.read_views(shard), kept, atol=0.02)
    assert not leftovers(outputs)


def import_into(out: str) -> None:
    """The archive's import, by the options that made it."""
    (features,) = Path("trident").rglob("features_*")
    where = ("--slides-root", "slides", "--manifest", "slides.csv", "--teacher", "local-dir:teacher")
    succeed("import-features", features, "--out", out, *where, "--patches-per-slide", "4", *CPU)


def test_an_import_that_was_cut_is_continued(outputs: Path) -> None:
    """Embeddings are the features' own, so that no arithmetic touches them."""
    store = Store(Path("imported.zarr"))
    before, pixels = array_files(store.folder), [store.read_pixels(row) for row in store.first.ledger.rows(0)]
    for name in ("embedding", "pixels", "status"):
        store.first.shard_path(name, 0).unlink()
    store.first.ledger.path(0).unlink()
    import_into("imported.zarr")
    after = array_files(store.folder)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} <= {"pixels/c/0/0/0/0"}
    assert np.array_equal([Store(store.folder).read_pixels(row) for row in store.first.ledger.rows(0)], pixels)
    assert not leftovers(outputs)


def test_features_are_imported_as_they_were(outputs: Path) -> None:
    import_into("anew.zarr")
    before, after = array_files(Path("imported.zarr")), array_files(Path("anew.zarr"))
    assert before.keys() == after.keys()
    chunks = [name for name in before if "/c/" in name and not name.startswith("pixels/")]
    assert len(chunks) > 3
    assert {name for name in chunks if before[name] != after[name]} == set()


@pytest.mark.slow
def test_a_run_that_was_cut_is_continued(outputs: Path) -> None:
    run = Path("run")
    shutil.rmtree(run / "student")
    last = max((run / "checkpoints").glob("step-*.pt"))
    last.unlink()
    last.with_suffix(".json").unlink()
    before = steps(run)
    weights = safetensors.numpy.load_file("exported/model.safetensors")
    succeed(*TRAIN)
    after = steps(run)
    assert [line["step"] for line in after] == [line["step"] for line in before]
    assert [line["loss"] for line in after] == pytest.approx([line["loss"] for line in before], rel=1e-3)
    for name, value in safetensors.numpy.load_file(run / "student" / "model.safetensors").items():
        np.testing.assert_allclose(value, weights[name], atol=1e-3, err_msg=name)


def steps(run: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics that are of steps."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "step"]


def test_a_finished_run_is_not_trained_again(outputs: Path) -> None:
    before = Path("run/metrics.jsonl").read_bytes()
    succeed(*TRAIN)
    assert Path("run/metrics.jsonl").read_bytes() == before


def test_its_student_is_exported_again(outputs: Path) -> None:
    succeed("export", "run", "--out", "again")
    first, second = (Path(name, "model.safetensors").read_bytes() for name in ("exported", "again"))
    assert first == second
    model = timm.create_model("local-dir:again", pretrained=True).eval()
    earlier = timm.create_model("local-dir:exported", pretrained=True).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(images), earlier(images))


@pytest.mark.parametrize("teacher", ["local-dir:teacher", "local-dir:second"])
def test_an_exported_student_still_reaches_its_teachers_space(outputs: Path, teacher: str) -> None:
    succeed(
        "embed",
        "exported",
        "slides.csv",
        "--slides-root",
        "slides",
        "--out",
        "mapped",
        "--layout",
        "trident",
        "--as-teacher",
        "--teacher",
        teacher,
        "--stride-px",
        "64",
        *CPU,
    )
    assert len(list(Path("mapped").rglob("features_*/*.h5"))) == 3


def test_a_folder_of_embeddings_is_complete(outputs: Path) -> None:
    before = {path: path.read_bytes() for path in Path("features").rglob("*.h5")}
    succeed(
        "embed",
        "exported",
        "slides.csv",
        "--slides-root",
        "slides",
        "--out",
        "features",
        "--layout",
        "trident",
        "--stride-px",
        "64",
        *CPU,
    )
    assert {path: path.read_bytes() for path in Path("features").rglob("*.h5")} == before


@pytest.mark.slow
def test_a_report_gives_the_same_scores(outputs: Path, request: pytest.FixtureRequest) -> None:
    """Version 0.1.0 chose the probe's strength in another way, by other draws. On another processor, one of the 24
    patches may fall on the other side of a boundary.
    """
    compared = ["fidelity"] if request.node.callspec.params["outputs"] == "0.1.0" else ["fidelity", "patches"]
    tolerance = {"fidelity": 1e-4, "patches": 1 / 24 + 1e-9}
    succeed(
        "evaluate",
        "--store",
        "store.zarr",
        "--models",
        "before=run@before",
        "--models",
        "after=run",
        "--no-cost",
        "--patches",
        "patches.csv",
        "--draws",
        "5",
        "--folds",
        "3",
        "--resamples",
        "100",
        "--out",
        "anew",
        *CPU,
    )
    first, second = (json.loads(Path(name, "report.json").read_text()) for name in ("report", "anew"))
    for key in compared:
        for name, models in first["sections"][key]["scores"].items():
            for model, score in models.items():
                found = second["sections"][key]["scores"][name][model]["value"]
                assert found == pytest.approx(score["value"], abs=tolerance[key]), (name, model)
