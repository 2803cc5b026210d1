"""`g2l evaluate` as a whole: a teacher, a student before and after, and another encoder on data of every kind."""

import csv
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from support.benchmarks import config
from support.browser import running_browser
from support.commands import call_g2l, leftovers, run_g2l
from support.extraction import PATCH_PX, TEACHER, extract, plan_cohort, write_cohort, write_teacher
from support.failing import failing
from support.stores import make_patches, train_config
from support.wandb_files import read_wandb

from pipeline.evaluate.benchmark import load_benchmark
from pipeline.evaluate.options import benchmarks
from stages.evaluate import idle_notes
from stages.train_student import train_student

STUDENT = "test_efficientnet"


class Bench:
    """A folder with a store, a run, and tables of every kind; and the command that evaluates them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = write_teacher(folder / "teacher.safetensors")
        plan = plan_cohort(write_cohort(folder / "slides", 4))
        self.store = extract(plan, folder / "store.zarr", self.weights).store
        train_student(self.store, folder / "run", train_config(STUDENT, epochs=1))
        self.models = [
            f"teacher={TEACHER}@{self.weights}",
            f"before={folder / 'run'}@before",
            f"after={folder / 'run'}",
        ]
        self.write_images()
        self.write_features()

    def write_images(self) -> None:
        """48 images of 4 cases a class in two centres, told apart by colour; the tables for patches and robustness."""
        images = self.folder / "images"
        images.mkdir()
        rows, pathorob = [], []
        for i, patch in enumerate(make_patches(48, PATCH_PX, seed=1)):
            label, center = i % 2, i // 2 % 2
            tinted = np.clip(patch.astype(int) + np.array([60, -60, 0]) * (1 if label else -1), 0, 255).astype(np.uint8)
            Image.fromarray(tinted).save(images / f"{i}.png")
            case = f"case {i % 8}"
            rows.append([f"images/{i}.png", ("<b>normal</b>", "tumour")[label], case, ("north", "south")[center]])
            pathorob.append(
                ["all", case, str(i), ("normal", "tumour")[label], ("north", "south")[center], f"images/{i}.png"]
            )
        self.write("patches.csv", ["path", "label", "group", "center"], rows)
        columns = ["subset", "slide_id", "patch_id", "biological_class", "medical_center", "path"]
        self.write("pathorob.csv", columns, pathorob)
        paired = [
            [f"{s}-{c}", str(p), s, c, f"images/{8 * (2 * i + j) + p}.png"]
            for i, s in enumerate("AB")
            for j, c in enumerate(("HE", "GM"))
            for p in range(8)
        ]
        self.write("plism.csv", ["slide_id", "patch_id", "scanner", "staining", "path"], paired)

    def write_features(self) -> None:
        """16 cases with two slides each, in TRIDENT's layout, and their labels; one slide has no file."""
        rng = np.random.default_rng(0)
        (self.folder / "features").mkdir()
        rows = []
        for case in range(16):
            label = case % 2
            rows.append([f"T-{case:02}", ("wild-type", "mutated")[label]])
            for slide in range(2):
                with h5py.File(self.folder / "features" / f"T-{case:02}-{slide}.h5", "w") as f:
                    f["features"] = rng.normal(size=(6, 8)).astype(np.float32) + 2 * label
                    f["coords"] = np.zeros((6, 2), np.int64)
        rows += [["T-99", "mutated"], ["T-98", "unknown"]]
        self.write("labels.csv", ["case_id", "tp53"], rows)

    def write(self, name: str, columns: list[str], rows: list[list[str]]) -> None:
        with open(self.folder / name, "w", newline="") as f:
            csv.writer(f).writerows([columns, *rows])

    def arguments(self, out: Path, *more: object) -> list[object]:
        models = [word for model in self.models for word in ("--models", model)]
        return [
            "evaluate",
            "--out",
            out,
            *models,
            "--device",
            "cpu",
            "--resamples",
            100,
            "--draws",
            5,
            "--folds",
            2,
            "--mil-epochs",
            2,
            *more,
        ]

    def everything(self, out: Path, *more: object) -> list[object]:
        f = self.folder
        return self.arguments(
            out,
            "--store",
            f / "store.zarr",
            "--patches",
            f / "patches.csv",
            "--slides",
            f / "labels.csv",
            "--label",
            "tp53",
            "--features",
            f"after={f / 'features'}",
            "--robustness",
            f / "pathorob.csv",
            "--cost-batch-sizes",
            2,
            "--cost-rounds",
            2,
            *more,
        )


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def report(bench: Bench) -> tuple[Path, str, dict[str, Any]]:
    """The folder of a report of everything, what the command said, and its JSON."""
    out = bench.folder / "report"
    code, said, errors = call_g2l(*bench.everything(out))
    assert code == 3, errors  # a feature file is missing
    return out, said, json.loads((out / "report.json").read_text())


def test_one_command_makes_one_report_of_everything(report: tuple[Path, str, dict[str, Any]]) -> None:
    out, said, record = report
    assert list(record["sections"]) == ["fidelity", "patches", "slides", "robustness", "cost"]
    assert [(m["label"], m["role"]) for m in record["models"]] == [
        ("teacher", "teacher"),
        ("before", "student before distillation"),
        ("after", "student after distillation"),
    ]
    assert record["reference"] == "teacher"
    assert "report.html" in said
    assert "1 left out" in said
    page = (out / "report.html").read_text()
    assert "&lt;b&gt;normal&lt;/b&gt;" in page
    assert "<b>normal</b>" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page)
    for section in record["sections"].values():
        assert all((out / name).stat().st_size > 1000 for name in section["figures"])
    assert (out / "score_against_size.png").is_file()
    assert not leftovers(out.parent)


def test_every_section_says_what_it_rests_on(report: tuple[Path, str, dict[str, Any]]) -> None:
    sections = report[2]["sections"]
    assert sections["patches"]["basis"]["patches"] == 48
    assert sections["robustness"]["basis"]["slides"] == 8
    assert sections["slides"]["basis"]["cases"] == 16
    assert sections["fidelity"]["basis"]["patches"] > 1
    whys = {exclusion["what"]: exclusion["why"] for exclusion in sections["slides"]["exclusions"]}
    assert any("T-99" in what for what in whys)
    assert any("T-98" in what for what in whys)


def test_the_teacher_is_faithful_to_itself(report: tuple[Path, str, dict[str, Any]]) -> None:
    fidelity = report[2]["sections"]["fidelity"]["tables"]
    own = next(t for t in fidelity if t["title"].startswith("Standing in"))["rows"][0]
    found = [round(own[name]["value"], 5) for name in ("R2 scaled", "cosine", "overlap at 10")]
    assert (own["model"], found) == ("teacher", [1, 1, 1])


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 900, False), (390, 844, True)])
def test_the_page_of_a_real_report_opens_without_an_error(
    report: tuple[Path, str, dict[str, Any]], tmp_path: Path, width: int, height: int, phone: bool
) -> None:
    with running_browser() as browser:
        page = browser.open((report[0] / "report.html").as_uri(), width, height, phone=phone)
        assert page.problems == []
        assert len(page.requests) == 1
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        with Image.open(page.picture(tmp_path / "page.png")) as picture:
            assert picture.height > 2 * height


def comparable(record: dict[str, Any]) -> dict[str, Any]:
    """A report without what belongs to one call."""
    sections = {name: section for name, section in record["sections"].items() if name != "cost"}
    settings = {name: value for name, value in record["settings"].items() if name != "cache"}
    return {**record, "run": None, "sections": sections, "settings": settings}


@pytest.mark.slow
@pytest.mark.parametrize("threads", [{}, {"OMP_NUM_THREADS": "2"}])
def test_the_same_seed_gives_the_same_report_to_the_digit(
    bench: Bench, report: tuple[Path, str, dict[str, Any]], tmp_path: Path, threads: dict[str, str]
) -> None:
    """In another process, and with other threads as well where the embeddings are the same."""
    cache = ("--cache", report[0] / "embeddings") if threads else ()
    result = run_g2l(*bench.everything(tmp_path / "again", *cache), **threads)
    assert result.returncode == 3, result.stderr
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert comparable(again) == comparable(report[2])
    for name in ("patches_scores.png", "fidelity_patches.png"):
        assert (tmp_path / "again" / name).read_bytes() == (report[0] / name).read_bytes()


@pytest.mark.slow
def test_embeddings_are_computed_once(
    bench: Bench, report: tuple[Path, str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, _, record = report
    before = {path.name: path.stat().st_mtime_ns for path in (out / "embeddings").iterdir()}
    assert len(before) == 2 + 3 + 3  # the store for the two students, and the images of two tables for all three
    monkeypatch.setattr("stages.evaluate.embed_rows", failing(AssertionError("embeddings were computed again")))
    code, _, errors = call_g2l(*bench.everything(out))
    assert code == 3, errors
    assert {path.name: path.stat().st_mtime_ns for path in (out / "embeddings").iterdir()} == before
    assert comparable(json.loads((out / "report.json").read_text())) == comparable(record)


@pytest.mark.slow
def test_scores_and_page_are_logged(
    bench: Bench, report: tuple[Path, str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[Any] = []
    told = {"scalars": lambda values, step: said.append(values), "files": said.append, "end": lambda finished: None}
    monkeypatch.setattr("pipeline.report.logs.tracker.require_services", lambda services: None)
    monkeypatch.setattr("pipeline.report.logs.mlflow_log.start", lambda folder, kind, config: SimpleNamespace(**told))
    code, _, errors = call_g2l(*bench.everything(report[0], "--log", "mlflow"))
    assert code == 3, errors
    scores, files = said
    assert {"report.html", "report.json"} < {path.name for path in files}
    assert any(path.suffix == ".png" for path in files)
    sections = report[2]["sections"]
    wanted = {
        f"{label}/{name}": each["value"]
        for key in sections
        if key != "cost"
        for name, of_models in sections[key]["scores"].items()
        for label, each in of_models.items()
    }
    assert wanted.items() <= scores.items()
    assert len(wanted) > 5


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")  # of the database library, in MLflow
def test_both_services_get_the_report_as_artefact(
    bench: Bench, report: tuple[Path, str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The libraries themselves, offline."""
    pytest.importorskip("wandb")
    tracking = pytest.importorskip("mlflow.tracking")
    out = Path(shutil.copytree(report[0], tmp_path / "report"))
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_"))]:
        monkeypatch.delenv(name)
    done = run_g2l(*bench.everything(out, "--log", "wandb", "--log", "mlflow"))
    assert done.returncode == 3, done.stderr
    assert "warning: --log" not in done.stderr
    record = json.loads((out / "report.json").read_text())
    files = {path.name for path in out.iterdir() if path.suffix in (".html", ".json", ".png")}
    assert {"report.html", "report.json"} < files

    (file,) = out.glob("wandb/offline-run-*/run-*.wandb")
    logged = read_wandb(file)
    assert logged.about.job_type == "evaluate"
    assert logged.config == record["settings"]
    assert logged.artifacts == [sorted(files)]
    scores = logged.scalars - {"step"}
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("g2l").experiment_id])
    assert run.data.tags["kind"] == "evaluate"
    assert run.data.params["seed"] == str(record["settings"]["seed"])
    assert {each.path for each in client.list_artifacts(run.info.run_id)} == files
    assert len(run.data.metrics) == len({each for each in scores if not each.startswith("_")}) + 1 > 5  # and how far


def test_a_report_of_other_options_is_not_overwritten(bench: Bench, report: tuple[Path, str, dict[str, Any]]) -> None:
    code, _, errors = call_g2l(*bench.everything(report[0], "--seed", 1))
    assert code == 1
    assert "holds a report of other options" in errors
    assert "seed: 0 -> 1" in errors


@pytest.mark.slow
def test_a_call_that_failed_may_be_mended_in_place(bench: Bench, tmp_path: Path) -> None:
    more = ("--patches", bench.folder / "patches.csv", "--no-cost")
    code, _, errors = call_g2l(*bench.arguments(tmp_path / "out", *more, "--folds", 9))
    assert code == 1
    assert "folds" in errors
    assert "evaluate: teacher" not in errors  # told before anything was embedded
    code, _, errors = call_g2l(*bench.arguments(tmp_path / "out", *more))
    assert code == 0, errors


@pytest.mark.slow
def test_the_options_that_were_used_make_the_report_again(
    bench: Bench, report: tuple[Path, str, dict[str, Any]]
) -> None:
    code, _, errors = call_g2l("evaluate", "--config", report[0] / "evaluate.toml")
    assert code == 3, errors


def test_a_folder_of_something_else_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    code, _, errors = call_g2l(*bench.arguments(tmp_path))
    assert code == 1
    assert "not empty and holds no report" in errors


@pytest.mark.slow
def test_cost_alone_needs_no_data(bench: Bench, tmp_path: Path) -> None:
    more = ("--cost-batch-sizes", 1, "--cost-rounds", 1, "--patch-px", PATCH_PX)
    code, said, errors = call_g2l(*bench.arguments(tmp_path / "out", *more))
    assert code == 0, errors
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["sections"]) == ["cost"]
    assert "report.html" in said
    assert "to 1.000, least and largest round" in said
    for model in report["models"]:  # nobody wrote down of these what the table of encoders would say
        assert (model["params_m"], model["num_params"] > 0) == (None, True)
        assert model["mpp"] != 0
    assert "params_m" not in (tmp_path / "out" / "report.html").read_text()


def test_options_of_what_is_not_asked_for_are_told(tmp_path: Path) -> None:
    def notes(**options: Any) -> list[str]:
        of_call = config(**options)
        kinds = {load_benchmark(room): of_call.part(benchmarks.options_of(room)) for room in benchmarks.BENCHMARKS}
        return idle_notes(kinds, [kind for kind, of_kind in kinds.items() if kind.is_wanted(of_kind)])

    assert sorted(notes(ri_k=5, robustness_sweep="own", margins=False, knn=20, probe_c=0.1, seed=3)) == [
        "--no-margins: no effect without --robustness",
        "--probe-c: no effect without --patches or --slides with --features",
        "--ri-k: no effect without --robustness",
        "--robustness-sweep: no effect without --robustness",
        "--seed: no effect without --store, --patches, --slides with --features or --robustness",
    ]
    assert notes(patches=tmp_path / "p.csv", probe_c=0.1, seed=3, images_root=tmp_path) == []
    assert notes(cost=False, cost_rounds=3) == ["--cost-rounds: no effect without --cost"]


@pytest.mark.slow
def test_features_of_no_model_are_told_and_shown(bench: Bench, tmp_path: Path) -> None:
    more = (
        "--slides",
        bench.folder / "labels.csv",
        "--label",
        "tp53",
        "--features",
        f"typo={bench.folder / 'features'}",
    )
    code, said, errors = call_g2l(*bench.arguments(tmp_path / "out", *more, "--no-cost"))
    assert code == 3, errors
    words = "The features typo are of none of the models (teacher, before, after) and stand for themselves."
    assert words in errors
    assert "typo" in said
    assert words in json.loads((tmp_path / "out" / "report.json").read_text())["sections"]["slides"]["notes"]


@pytest.mark.slow
def test_paired_slides_of_plism(bench: Bench, tmp_path: Path) -> None:
    more = ("--robustness", bench.folder / "plism.csv", "--no-cost")
    code, _, errors = call_g2l(*bench.arguments(tmp_path / "out", *more))
    assert code == 0, errors
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_unreadable_images_are_left_out_of_all_models_and_listed(bench: Bench, tmp_path: Path) -> None:
    rows = [row.split(",") for row in (bench.folder / "patches.csv").read_text().splitlines()[1:]]
    (bench.folder / "images" / "broken.png").write_bytes(b"no image")
    (bench.folder / "images" / "empty.png").write_bytes(b"")
    for name in ("broken", "empty", "absent"):
        rows.append([f"images/{name}.png", "tumour", "case 1", "north"])
    bench.write("some_bad.csv", ["path", "label", "group", "center"], rows)
    more = ("--patches", bench.folder / "some_bad.csv", "--no-cost")
    code, said, errors = call_g2l(*bench.arguments(tmp_path / "out", *more))
    assert code == 3, errors
    assert "3 left out" in said
    section = json.loads((tmp_path / "out" / "report.json").read_text())["sections"]["patches"]
    assert section["basis"]["patches"] == 48
    assert [Path(e["what"]).stem for e in section["exclusions"]] == ["broken", "empty", "absent"]


def nothing(bench: Bench) -> list[object]:
    return ["--no-cost"]


def no_features(bench: Bench) -> list[object]:
    return ["--slides", bench.folder / "labels.csv"]


def no_folder(bench: Bench) -> list[object]:
    return ["--slides", bench.folder / "labels.csv", "--features", "x=/nowhere"]


def no_reference(bench: Bench) -> list[object]:
    return ["--reference", "nobody"]


def twice(bench: Bench) -> list[object]:
    return ["--models", bench.models[0]]


def another_size(bench: Bench) -> list[object]:
    return ["--models", "uni@scratch", "--store", bench.folder / "store.zarr"]


def no_image(bench: Bench) -> list[object]:
    bench.write("none.csv", ["path", "label"], [["a.png", "x"], ["b.png", "y"]])
    return ["--patches", bench.folder / "none.csv"]


def no_file(bench: Bench) -> list[object]:
    return ["--patches", bench.folder / "missing.csv"]


def no_store(bench: Bench) -> list[object]:
    return ["--store", bench.folder / "missing.zarr"]


def no_run(bench: Bench) -> list[object]:
    return ["--models", bench.folder / "no" / "run", "--patches", bench.folder / "patches.csv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (nothing, "nothing to evaluate"),
        (no_features, "--slides and --features belong together"),
        (no_folder, "/nowhere is not a folder"),
        (no_reference, "--reference nobody: the models are teacher, before, after"),
        (twice, "two are called teacher"),
        (another_size, "uni takes patches of 224 px"),
        (no_image, "none of its 2 images can be used"),
        (no_file, "missing.csv"),
        (no_store, "missing.zarr"),
        (no_run, "no/run: there is no such model"),
    ],
)
def test_wrong_use_is_told_before_anything_is_computed(
    bench: Bench, tmp_path: Path, options: Callable[[Bench], list[object]], words: str
) -> None:
    code, said, errors = call_g2l(*bench.arguments(tmp_path / "out", *options(bench)))
    assert (code, said) == (1, "")
    assert words in errors
    assert "Traceback" not in errors
    assert not (tmp_path / "out").exists()


def test_a_model_that_gives_no_numbers_is_refused(bench: Bench, tmp_path: Path) -> None:
    import safetensors.torch

    weights = safetensors.torch.load_file(bench.weights)
    name = next(key for key in weights if key.endswith(".weight"))
    weights[name][:] = 3e38  # finite, but nothing that comes of it is
    safetensors.torch.save_file(weights, tmp_path / "huge.safetensors")
    more = ("--models", f"bad={TEACHER}@{tmp_path / 'huge.safetensors'}", "--patches", bench.folder / "patches.csv")
    code, _, errors = call_g2l(*bench.arguments(tmp_path / "out", *more))
    assert code == 1
    assert "bad: 48 of 48 embeddings of the patches hold NaN or infinity" in errors


@pytest.mark.slow
def test_slides_need_no_models(bench: Bench, tmp_path: Path) -> None:
    """The report says what each label is; the same call renews it; the named features are the reference."""
    with h5py.File(next((bench.folder / "features").iterdir())) as file:
        assert "encoder" not in file["features"].attrs
    features = ("--features", f"a={bench.folder / 'features'}", "--features", f"b={bench.folder / 'features'}")
    quick = ("--device", "cpu", "--resamples", 100, "--folds", 2, "--mil-epochs", 2, "--reference", "b")
    slides = ("--slides", bench.folder / "labels.csv", "--label", "tp53", *features, *quick)
    for _ in range(2):
        code, said, errors = call_g2l("evaluate", "--out", tmp_path / "out", *slides)
        assert (code, "feature set" in said) == (3, True), errors
        assert "--cost: nothing is measured without --models" in errors
    record = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (record["reference"], list(record["sections"])) == ("b", ["slides"])
    assert "models" not in record["settings"]
    assert [(m["label"], m["features"], m["encoder"], m["width"]) for m in record["models"]] == [
        ("a", "features", None, 8),
        ("b", "features", None, 8),
    ]
    assert not any("stand for themselves" in note for note in record["sections"]["slides"]["notes"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "2 feature sets, 1 part" in page
    assert "encoder not named in the files" in page
    assert "parameters" not in page.partition("Slide benchmark: tp53</bdi></h2>")[0].partition("<body>")[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (lambda f: ["--patches", f / "patches.csv"], "--patches: give --models"),
        (lambda f: ["--robustness", f / "pathorob.csv"], "--robustness: give --models"),
        (lambda f: ["--store", f / "store.zarr"], "--store: give --models"),
        (lambda f: [], "nothing to evaluate: give --models with --store"),
        (lambda f: ["--no-cost"], "nothing to evaluate"),
        (
            lambda f: [
                "--slides",
                f / "labels.csv",
                "--label",
                "tp53",
                "--features",
                f / "features",
                "--reference",
                "x",
            ],
            "--reference x: the feature sets are features",
        ),
    ],
)
def test_a_missing_model_is_told_by_option(
    bench: Bench, tmp_path: Path, options: Callable[[Path], list[object]], words: str
) -> None:
    code, said, errors = call_g2l("evaluate", "--out", tmp_path / "out", "--device", "cpu", *options(bench.folder))
    assert (code, said, words in errors) == (1, "", True), errors
