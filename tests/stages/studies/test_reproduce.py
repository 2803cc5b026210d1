"""`g2l reproduce` on miniatures of public sets, with a tiny random model: the table, the report, and the verdicts."""

import csv
import json
import subprocess
from collections import Counter
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from support import public_sets
from support.commands import call_g2l, called, leftovers
from support.extraction import TEACHER, write_teacher

from pipeline.base.errors import EXIT_DIFFERENT, EXIT_ERROR, EXIT_OK, EXIT_PARTIAL, BenchmarkError
from pipeline.evaluate.probes import attention_mil, eva_probe
from pipeline.public_sets.published import PublishedValue
from pipeline.public_sets.recipe import SetRecipe, find_recipe
from pipeline.public_sets.whole import PublishedCounts
from pipeline.report.content import Column, Report, ReportModel, Section, Table
from stages.studies import reproduce as stage

QUICK = ("--patch-px", 64, "--resamples", 100, "--device", "cpu", "--workers", 1, "--no-cost")


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads are trained briefly: what is made of a value is the same for any."""
    monkeypatch.setattr(eva_probe, "MAX_STEPS", 50)
    monkeypatch.setattr(attention_mil, "EPOCHS", 2)
    monkeypatch.setattr(attention_mil, "MIN_STEPS", 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights in a file: `MODEL@scratch` is compared with nothing."""
    return write_teacher(tmp_path_factory.mktemp("weights") / "teacher.safetensors")


@pytest.fixture(scope="module")
def idc(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The command on IDC with a damaged image, an odd name and a copy under another label."""
    folder = tmp_path_factory.mktemp("idc")
    root = public_sets.idc(folder / "set", patients=10, each=6)
    (root / "8863/0/8863_idx5_x1_y1251_class0.png").write_bytes(b"no image")
    public_sets.picture(root / "8864/0/odd.png", 1)
    public_sets.picture(root / "8865/0/8865_idx5_x999_y1_class0.png", 201, tint=40)  # the picture of place 1, class 1
    model = f"h-optimus-0={TEACHER}@{weights}"
    options = (
        "--patch-px",
        64,
        "--resamples",
        100,
        "--device",
        "cpu",
        "--models",
        model,
        "--models",
        f"{TEACHER}@scratch",
    )
    return folder, called("reproduce", "idc", "--root", root, "--out", folder / "out", *options)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_it_writes_table_report_comparison_and_figures(idc: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = idc
    assert done.returncode == EXIT_PARTIAL, done.stderr
    out = folder / "out"
    names = {path.name for path in out.iterdir()}
    assert names >= {"reproduce.toml", "table.csv", "left_out.csv", "report", "comparison.csv", "comparison.png"}
    assert names >= {"figure_1.csv", "figure_1.png", "table_knn_accuracy.csv", "table_linear_probe_auroc.png"}
    assert (out / "report" / "report.html").exists()
    assert leftovers(folder) == []
    table = read_csv(out / "table.csv")
    assert list(table[0]) == ["path", "label", "case_id"]
    assert len(table) == 10 * 6 - 1


@pytest.mark.slow
def test_what_is_left_out_is_named(idc: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = idc
    left_out = {row["member"]: row for row in read_csv(folder / "out" / "left_out.csv")}
    assert left_out["8864/0/odd.png"]["by_rule"] == "False"
    copies = {"8865/0/8865_idx5_x999_y1_class0.png", "8865/1/8865_idx5_x51_y1251_class1.png"}
    assert {name for name, row in left_out.items() if row["by_rule"] == "True"} == copies
    assert "left out: 8864/0/odd.png" in done.stderr
    assert "2 members failed" in done.stdout  # the odd name, and the damaged image
    report = json.loads((folder / "out/report/report.json").read_text())
    assert "class0.png" in report["sections"]["patches"]["exclusions"][0]["what"]


@pytest.mark.slow
def test_our_values_are_those_of_the_report(idc: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    folder, done = idc
    rows = read_csv(folder / "out/comparison.csv")
    of_ours = {(row["model"], row["metric"]): row for row in rows if row["model"]}
    (linear,) = (
        table
        for table in json.loads((folder / "out/report/report.json").read_text())["sections"]["patches"]["tables"]
        if table["title"] == "Linear probe"
    )
    for shown in linear["rows"]:
        row = of_ours[shown["model"], "linear probe AUROC"]
        assert float(row["measured"]) == shown["AUROC"]["value"]
    teacher = of_ours["h-optimus-0", "linear probe AUROC"]
    assert (teacher["published"], teacher["verdict"]) == ("0.9778", "not comparable")
    assert of_ours[TEACHER, "linear probe AUROC"]["verdict"] == "no published value"
    assert {row["published_model"] for row in rows if not row["model"]} == {"g2l", "uni2-h", "hibou-l"}
    assert teacher["verdict"] in done.stdout


@pytest.mark.slow
def test_a_part_of_a_set_is_scored_but_never_passes(idc: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    """60 patches and a copy of the 277,524: neither PASS nor FAIL, and every table says why."""
    folder, done = idc
    why = "61 of 277,524 patches are there; by label: IDC 30 of 78,786, no IDC 31 of 198,738; 1 could not be used"
    rows = read_csv(folder / "out/comparison.csv")
    assert {row["reason"] for row in rows if row["model"]} == {why}
    assert not {row["verdict"] for row in rows} & {"PASS", "FAIL"}
    assert f"not comparable: {why}" in done.stdout
    assert f"not all of idc is there: {why.rpartition(';')[0]} (published: the set's page on Kaggle)" in done.stderr
    assert [row["values"] for row in read_csv(folder / "out/table_knn_accuracy.csv")] == [
        "published",
        "ours, not comparable",
    ]
    assert all("not comparable" in row["metric"] for row in read_csv(folder / "out/figure_1.csv"))


@pytest.mark.slow
def test_figure_1_has_sizes_and_times(idc: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    rows = {row["model"]: row for row in read_csv(idc[0] / "out/figure_1.csv") if "AUROC" in row["metric"]}
    assert float(rows["h-optimus-0"]["ms_per_patch"]) > 0
    assert rows["h-optimus-0, published"]["ms_per_patch"] == ""
    assert rows["h-optimus-0, published"]["parameters"] == "1135000000"
    assert 0 < int(rows["h-optimus-0"]["parameters"]) < 10_000_000


def reproduce(name: str, root: Path, out: Path, weights: Path, *more: object) -> tuple[int, str, str]:
    model = ("--models", f"mine={TEACHER}@{weights}")
    return call_g2l("reproduce", name, "--root", root, "--out", out, *model, *QUICK, *more)


@pytest.fixture
def bracs(tmp_path: Path) -> Path:
    return public_sets.bracs(tmp_path / "set")


@pytest.mark.slow
def test_a_set_of_copies_only_is_told(tmp_path: Path, weights: Path) -> None:
    """Each picture has two labels, so that all are left out."""
    root = public_sets.bracs(tmp_path / "set")
    for path in root.rglob("*.png"):
        public_sets.picture(path, 1)
    code, _, errors = reproduce("bracs", root, tmp_path / "out", weights)
    assert (code, "all 8 members are left out" in errors) == (EXIT_ERROR, True)
    assert len(read_csv(tmp_path / "out/left_out.csv")) == 8
    assert leftovers(tmp_path) == []


def publish(monkeypatch: pytest.MonkeyPatch, name: str, metric: str, value: float) -> None:
    """Let a value be published of the model that is called mine."""
    published = PublishedValue(name, "mine", metric, value, None, None, "paper", "a source", "a table")
    monkeypatch.setattr(stage, "published_values", lambda: (published,))
    monkeypatch.setattr(stage, "published_name", lambda label, model: label)


def miniature_is_whole(monkeypatch: pytest.MonkeyPatch, name: str, root: Path) -> None:
    """Let a recipe of a set say that it holds what a miniature does."""
    recipe = find_recipe(name)
    rows = recipe.load_reader()(root, root / "no images", recipe.reader_options).rows
    by = {"label": Counter(row["label"] for row in rows)}
    mine = replace(recipe, counts=PublishedCounts("the test", total=len(rows), by=by))

    def find(asked: str) -> SetRecipe:
        return mine if asked == name else find_recipe(asked)

    monkeypatch.setattr(stage, "find_recipe", find)


@pytest.mark.slow
def test_pass_and_fail_decide_the_exit_code(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = public_sets.bach(tmp_path / "set", range(36, 66))
    miniature_is_whole(monkeypatch, "bach", root)
    metric = "linear probe balanced accuracy"
    code, _, errors = reproduce("bach", root, tmp_path / "a", weights)
    assert code == EXIT_OK, errors
    rows = {row["metric"]: row for row in read_csv(tmp_path / "a/comparison.csv") if row["model"]}
    assert rows[metric]["verdict"] == "no published value"
    value, low = float(rows[metric]["measured"]), float(rows[metric]["low"])
    tolerance = float(rows[metric]["tolerance"])
    for published, expected in ((value, EXIT_OK), (value - 2.5 * tolerance, EXIT_DIFFERENT)):
        publish(monkeypatch, "bach", metric, published)
        code, shown, _ = reproduce("bach", root, tmp_path / "a", weights)
        assert (code, "FAIL" in shown, "PASS" in shown) == (expected, expected != EXIT_OK, expected == EXIT_OK)
    assert low <= value
    (root / "ICIAR2018_BACH_Challenge/Photos/Benign/b036.tif").write_bytes(b"cut short")
    (root / "ICIAR2018_BACH_Challenge/Photos/Benign/b037.tif").unlink()
    code, shown, _ = reproduce("bach", root, tmp_path / "b", weights)  # still of what would be a FAIL
    why = "119 of 120 images are there; by label: benign 29 of 30; 1 could not be used"
    assert (code, "FAIL" in shown, f"not comparable: {why}" in shown) == (EXIT_PARTIAL, False, True)
    monkeypatch.setattr(stage, "find_recipe", find_recipe)
    (root / "ICIAR2018_BACH_Challenge/Photos/Benign/b036.tif").unlink()
    code, shown, errors = reproduce("bach", root, tmp_path / "c", weights)
    assert (code, "not comparable: 118 of 400 images are there" in shown) == (EXIT_OK, True), errors


@pytest.mark.slow
def test_the_same_command_gives_the_same_files(tmp_path: Path, bracs: Path, weights: Path) -> None:
    reproduce("bracs", bracs, tmp_path / "out", weights)
    names = ("table.csv", "comparison.csv", "comparison.png", "figure_1.csv", "reproduce.toml")
    before = {name: (tmp_path / "out" / name).read_bytes() for name in names}
    assert reproduce("bracs", bracs, tmp_path / "out", weights)[0] == EXIT_OK
    assert before == {name: (tmp_path / "out" / name).read_bytes() for name in names}
    code, shown, errors = call_g2l("reproduce", "--config", tmp_path / "out/reproduce.toml")
    assert code == EXIT_OK, errors
    assert "no published value" in shown


@pytest.mark.slow
def test_another_set_or_option_does_not_overwrite(tmp_path: Path, bracs: Path, weights: Path) -> None:
    reproduce("bracs", bracs, tmp_path / "out", weights)
    code, _, errors = reproduce("bach", bracs, tmp_path / "out", weights)
    assert (code, "public_set: 'bracs' -> 'bach'" in errors) == (EXIT_ERROR, True)
    code, _, errors = reproduce("bracs", bracs, tmp_path / "out", weights, "--seed", 5)
    assert (code, "seed: 0 -> 5" in errors) == (EXIT_ERROR, True)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/mine.txt").write_text("keep")
    code, _, errors = reproduce("bracs", bracs, tmp_path / "other", weights)
    assert (code, "holds no reproduction" in errors) == (EXIT_ERROR, True)


@pytest.mark.slow
def test_values_of_another_reproduction_join_the_tables(tmp_path: Path, bracs: Path, weights: Path) -> None:
    reproduce("bracs", bracs, tmp_path / "a", weights)
    root = public_sets.bach(tmp_path / "bach", range(36, 66))
    assert reproduce("bach", root, tmp_path / "b", weights, "--beside", tmp_path / "a")[0] == EXIT_OK
    rows = read_csv(tmp_path / "b/table_cka_with_the_teacher.csv")
    assert (rows[0]["set"], rows[0]["values"], rows[0]["after"]) == ("bracs", "published", "0.9683")
    code, _, errors = reproduce("bach", root, tmp_path / "c", weights, "--beside", tmp_path / "nowhere")
    assert (code, "comparison.csv" in errors, (tmp_path / "c").exists()) == (EXIT_ERROR, True, False)


@pytest.mark.slow
def test_a_robustness_set(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = public_sets.pathorob(tmp_path / "set")
    code, _, errors = reproduce("pathorob-camelyon", root, tmp_path / "out", weights)
    assert code == EXIT_OK, errors
    rows = read_csv(tmp_path / "out/comparison.csv")
    (ours,) = (row for row in rows if row["model"] == "mine")
    assert 0 <= float(ours["measured"]) <= 1
    assert len(rows) == 21  # ours, and PathoROB's twenty
    report = json.loads((tmp_path / "out/report/report.json").read_text())
    assert report["settings"]["ri_k"] == 11


@pytest.mark.slow
def test_a_sweep_is_asked_for_by_the_name_of_the_set(tmp_path: Path, weights: Path) -> None:
    root = public_sets.pathorob(tmp_path / "set")
    code, _, errors = reproduce("pathorob-camelyon", root, tmp_path / "out", weights, "--sweep")
    assert (code, "No sweep (APD, nIPD): pathorob-camelyon has 17 slides of 300 patches" in errors) == (EXIT_OK, True)
    report = json.loads((tmp_path / "out/report/report.json").read_text())
    assert report["settings"]["robustness_sweep"] == "pathorob"
    assert any("No sweep" in note for note in report["sections"]["robustness"]["notes"])
    code, _, errors = reproduce("pathorob-camelyon", root, tmp_path / "out", weights)
    assert (code, "sweep: True -> False" in errors) == (EXIT_ERROR, True)
    code, _, errors = reproduce("bach", public_sets.bach(tmp_path / "bach"), tmp_path / "b", weights, "--sweep")
    assert (code, "--sweep: bach is no set for robustness" in errors) == (EXIT_ERROR, True)


@pytest.mark.slow
def test_tiles_are_cut_into_the_folder(tmp_path: Path, weights: Path) -> None:
    root = public_sets.tiger(tmp_path / "set")
    code, shown, errors = reproduce("tiger", root, tmp_path / "out", weights, "--models", "uni2-h=resnet10t@scratch")
    assert code == EXIT_OK, shown + errors
    assert len(list((tmp_path / "out/images").glob("*.png"))) == 12
    rows = read_csv(tmp_path / "out/comparison.csv")
    assert {row["verdict"] for row in rows if row["model"] == "mine"} == {"no published value"}
    assert "not comparable: how the paper cut TIGER's patches" in shown


def write_features(folder: Path, slides: list[str]) -> Path:
    folder.mkdir()
    for number, slide in enumerate(slides):
        with h5py.File(folder / f"{slide}.h5", "w") as file:
            file["features"] = np.random.default_rng(number).normal(size=(6, 8)).astype(np.float32) + number % 2
            file["coords"] = np.zeros((6, 2), dtype=np.int64)
    return folder


@pytest.mark.slow
def test_a_set_of_slides_needs_features(tmp_path: Path, weights: Path) -> None:
    root = public_sets.chimera(tmp_path / "set", patients=12)
    code, _, errors = reproduce("chimera", root, tmp_path / "a", weights)
    assert (code, "chimera needs --features" in errors) == (EXIT_ERROR, True)
    slides = [f"{patient}_{scan}" for patient in range(1003, 1015) for scan in (1, 2)]
    features = write_features(tmp_path / "features", slides)
    code, _, errors = reproduce("chimera", root, tmp_path / "b", weights, "--features", f"mine={features}")
    assert code == EXIT_OK, errors
    (mean,) = (row for row in read_csv(tmp_path / "b/comparison.csv") if "AUROC" in row["metric"] and row["model"])
    assert (mean["model"], 0 <= float(mean["measured"]) <= 1) == ("mine", True)
    code, _, errors = reproduce("idc", root, tmp_path / "c", weights, "--features", f"mine={features}")
    assert (code, "idc has no slides" in errors or "holds no" in errors) == (EXIT_ERROR, True)


@pytest.mark.slow
def test_a_set_of_slides_needs_no_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are compared by their label, unless their files name another encoder."""
    metric = "slides, AUROC of the mean"
    values = [PublishedValue("chimera", name, metric, 0.5, None, None, "paper", "", "") for name in ("uni", "virchow2")]
    monkeypatch.setattr(stage, "published_values", lambda: values)
    root = public_sets.chimera(tmp_path / "set", patients=12)
    features = write_features(
        tmp_path / "features", [f"{patient}_{scan}" for patient in range(1003, 1015) for scan in (1, 2)]
    )
    for path in features.iterdir():
        with h5py.File(path, "a") as file:
            file["features"].attrs["encoder"] = "uni_v1"
    named = ("--features", f"uni={features}", "--features", f"virchow2={features}")
    options = ("--resamples", 100, "--device", "cpu", *named)
    code, shown, errors = call_g2l("reproduce", "chimera", "--root", root, "--out", tmp_path / "out", *options)
    assert code in (EXIT_OK, EXIT_DIFFERENT), shown + errors
    assert "virchow2: its feature files name the encoder uni_v1; it is compared with nothing" in errors
    rows = {row["model"]: row for row in read_csv(tmp_path / "out/comparison.csv") if row["metric"] == metric}
    assert (rows["uni"]["published_model"], rows["virchow2"]["published_model"]) == ("uni", "")
    sizes = {row["model"]: row for row in read_csv(tmp_path / "out/figure_1.csv") if "AUROC" in row["metric"]}
    assert (sizes["uni"]["whose"], sizes["uni"]["parameters"] != "", sizes["virchow2"]["parameters"]) == (
        "ours",
        True,
        "",
    )


@pytest.mark.parametrize(
    ("name", "words"),
    [("idc", "idc needs --models"), ("tp53", "tp53 needs --features"), ("pathorob-camelyon", "needs --models")],
)
def test_what_is_missing_is_told_before_the_set_is_read(tmp_path: Path, name: str, words: str) -> None:
    code, _, errors = call_g2l("reproduce", name, "--root", tmp_path, "--out", tmp_path / "out")
    assert (code, words in errors, (tmp_path / "out").exists()) == (EXIT_ERROR, True, False)


@pytest.fixture
def no_scoring(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """An evaluation that only leaves the file of a report; and where."""
    made: list[Path] = []

    def evaluate(out: Path, config: object) -> Report:
        del config
        out.mkdir(exist_ok=True)
        (out / "report.json").write_text("{}")
        made.append(out)
        return Report("", [ReportModel("mine", "", {}, 1)], "mine", [], {}, {})

    monkeypatch.setattr(stage, "evaluate", evaluate)
    return made


def test_a_typo_takes_no_folder(tmp_path: Path, weights: Path, no_scoring: list[Path]) -> None:
    """Neither another root nor a model that is none, and the right command follows in the same --out."""
    root, out = public_sets.bracs(tmp_path / "set"), tmp_path / "out"
    for wrong, more, words in (
        (tmp_path / "nowhere", (), "is not a folder"),
        (root, ("--models", "hopitmus-0"), "no encoder is called hopitmus-0"),
        (root, ("--models", f"b={TEACHER}@{tmp_path / 'none.safetensors'}"), "no such weights"),
    ):
        code, _, errors = reproduce("bracs", wrong, out, weights, *more)
        assert (code, words in errors, out.exists()) == (EXIT_ERROR, True, False)
    (tmp_path / "other").mkdir()
    code, _, errors = reproduce("bracs", tmp_path / "other", out, weights)  # a folder, but another one
    assert (code, no_scoring) == (EXIT_ERROR, []), errors
    assert reproduce("BRACS", root, out, weights, "--seed", 5)[0] == EXIT_OK  # nothing was scored: all may change
    assert no_scoring == [out / "report"]


@pytest.mark.slow
def test_models_and_the_place_of_the_set_may_change(tmp_path: Path, weights: Path, no_scoring: list[Path]) -> None:
    root, out = public_sets.bracs(tmp_path / "set"), tmp_path / "out"
    assert reproduce("bracs", root, out, weights)[0] == EXIT_OK
    moved = root.rename(tmp_path / "moved")
    code, _, errors = reproduce("bracs", moved, out, weights, "--models", f"{TEACHER}@scratch", "--cost")
    assert code == EXIT_OK, errors
    assert all(words in errors for words in ("is made anew", "root: ", "models: ", "cost: False -> True"))
    assert len(no_scoring) == 2
    code, _, errors = reproduce("bracs", moved, out, weights, "--seed", 5)
    assert (code, "seed: 0 -> 5" in errors, (out / "comparison.csv").exists()) == (EXIT_ERROR, True, True)


def everything(folder: Path) -> dict[str, bytes]:
    """All files by their path, but for locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith("g2l-lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("wrong", ["evaluation", "root"])
def test_values_come_back_if_others_cannot_be_made(
    tmp_path: Path, weights: Path, no_scoring: list[Path], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    """And they are out of the way meanwhile, so that a killed call leaves no values of other models."""
    root, out = public_sets.bracs(tmp_path / "set"), tmp_path / "out"
    assert reproduce("bracs", root, out, weights)[0] == EXIT_OK
    (out / "report/embeddings").mkdir()
    (out / "report/embeddings/kept").write_text("hours")
    (out / "table_of_the_paper.csv").write_text("values")
    before = everything(out)
    seen: list[dict[str, bytes]] = []

    def broken(report: Path, config: object) -> Report:
        seen.append({name: data for name, data in everything(out).items() if "g2l-part" not in name})
        (report / "embeddings/new").write_text("more hours")
        (report / "report.html").write_text("half")
        raise BenchmarkError(f"no such weights for {type(config).__name__}")

    monkeypatch.setattr(stage, "evaluate", broken)
    (tmp_path / "other").mkdir()
    place = root if wrong == "evaluation" else tmp_path / "other"
    code, _, errors = reproduce("bracs", place, out, weights, "--models", f"{TEACHER}@scratch")
    assert (code, "is made anew" in errors) == (EXIT_ERROR, True)
    if wrong == "evaluation":
        assert sorted(seen[0]) == ["left_out.csv", "report/embeddings/kept", "reproduce.toml", "table.csv"]
        before["report/embeddings/new"] = b"more hours"
    assert everything(out) == before
    assert reproduce("bach", public_sets.bach(tmp_path / "bach"), out, weights)[0] == EXIT_ERROR
    assert everything(out) == before


def test_another_set_is_taken_where_there_are_no_values(tmp_path: Path, weights: Path, no_scoring: list[Path]) -> None:
    out = tmp_path / "out"
    (tmp_path / "empty").mkdir()
    assert reproduce("bracs", tmp_path / "empty", out, weights)[0] == EXIT_ERROR
    assert reproduce("bach", public_sets.bach(tmp_path / "bach"), out, weights)[0] == EXIT_OK
    code, _, errors = reproduce("bracs", public_sets.bracs(tmp_path / "set"), out, weights)
    assert (code, "public_set: " in errors, "holds another reproduction" in errors) == (EXIT_ERROR, True, True), errors


def test_tables_of_sets_that_are_beside_no_more_go(tmp_path: Path, weights: Path, no_scoring: list[Path]) -> None:
    root, out = public_sets.bracs(tmp_path / "set"), tmp_path / "out"
    assert reproduce("bracs", root, out, weights)[0] == EXIT_OK
    before = everything(out)
    (out / "table_of_another_set.csv").write_text("values")
    (out / "report/report.json").unlink()
    assert reproduce("bracs", root, out, weights)[0] == EXIT_OK
    assert everything(out).keys() == before.keys()


@pytest.mark.slow
def test_another_model_joins_without_embedding_the_first_again(tmp_path: Path, bracs: Path, weights: Path) -> None:
    reproduce("bracs", bracs, tmp_path / "out", weights)
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/report/embeddings").rglob("*.*")}
    first = [row for row in read_csv(tmp_path / "out/comparison.csv") if row["model"] == "mine"]
    code, _, errors = reproduce("bracs", bracs, tmp_path / "out", weights, "--models", f"{TEACHER}@scratch")
    assert code == EXIT_OK, errors
    assert kept
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    rows = read_csv(tmp_path / "out/comparison.csv")
    assert {row["model"] for row in rows if row["model"]} == {"mine", TEACHER}
    assert [row["measured"] for row in rows if row["model"] == "mine"] == [row["measured"] for row in first]


def test_wrong_use_is_named(tmp_path: Path, weights: Path) -> None:
    for name, words in (("idcc", "did you mean idc?"), ("aggc", "aggc cannot be reproduced")):
        code, _, errors = reproduce(name, tmp_path, tmp_path / "out", weights)
        assert (code, words in errors) == (EXIT_ERROR, True)
    code, _, errors = reproduce("idc", tmp_path / "nowhere", tmp_path / "out", weights)
    assert (code, "is not a folder" in errors) == (EXIT_ERROR, True)
    code, _, errors = call_g2l("reproduce", "idc", "--out", tmp_path / "out")
    assert (code, "missing" in errors or "required" in errors) == (EXIT_ERROR, True)


def test_the_list_is_shown_without_a_root() -> None:
    code, shown, _ = call_g2l("reproduce", "--list")
    assert (code, "terms: CC BY 4.0" in shown) == (EXIT_OK, True)


def table(title: str, column: str, value: float) -> Table:
    return Table(title, [Column("model"), Column(column)], [["mine", value]])


@pytest.mark.parametrize(("reference", "verdict"), [("teacher", "FAIL"), ("mine", "not measured")])
def test_what_is_measured_against_another_teacher_is_another_number(reference: str, verdict: str) -> None:
    """CKA is with the paper's teacher, which must be the report's reference."""
    cka = table("Linear CKA with teacher", "CKA, plain", 0.95)
    models = [
        ReportModel("teacher", "", {"name": "h-optimus-0", "weights": "pretrained"}, 1),
        ReportModel("mine", "", {"name": "hibou-l", "weights": "pretrained"}, 1),
    ]
    report = Report("", models, reference, [Section("patches", "", "", {}, [cka])], {}, {})
    recipe = find_recipe("breakhis-200x")
    rows = [row for row in stage.compare_report(recipe, report, recipe.protocol) if row.metric.startswith("CKA")]
    assert [row.verdict for row in rows if row.model == "mine"] == [verdict]
    assert [row.measured.value for row in rows if row.measured] == ([0.95] if verdict == "FAIL" else [])


def test_without_a_whole_set_nothing_is_compared() -> None:
    report = Report("", [ReportModel("hibou-l", "", {}, 1)], "hibou-l", [], {}, {})
    report.sections.append(Section("patches", "", "", {}, [table("kNN, k", "balanced accuracy", 0.9)]))
    assert [row.reason for row in stage.compare_report(find_recipe("idc"), report, "plain", "a part") if row.model] == [
        "a part",
        "a part",
    ]
