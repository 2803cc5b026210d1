"""Fidelity of models on a store: known answers, a plain recomputation, and what is said where nothing can be."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import r2_score
from support.fidelity import OPTIONS, scored, section_of, teacher_embeddings
from support.stores import make_store

from pipeline.evaluate.bootstrap import GroupResamples
from pipeline.evaluate.fidelity.score import FITTED, TeacherSpace, row_figures
from pipeline.projector import EPSILON, Projector
from pipeline.report.content import AFTER, BEFORE, TEACHER, Interval, Section, Table
from pipeline.store.store import Store
from pipeline.training.held_out import FIGURES, MEANINGS
from pipeline.training.similarity import debiased_linear_cka, linear_cka


def by_name(section: Section, title: str) -> Table:
    return next(table for table in section.tables if table.title.startswith(title))


def row_of(table: Table, label: str) -> dict[str, Any]:
    names = [column.name for column in table.columns]
    return next(dict(zip(names, row, strict=True)) for row in table.rows if row[0] == label)


def value(cell: Any) -> float:
    return cell.value if isinstance(cell, Interval) else cell


def test_the_teacher_itself_is_perfect(store: Store, tmp_path: Path) -> None:
    rows, model = scored(store, "teacher", is_teacher=True, named={"role": TEACHER})
    section = section_of(store.first, rows, [model], tmp_path)
    measures = {
        "What each model holds": ["R2 linear map"],
        "Standing in": ["correlation", "median correlation", "R2 scaled"],
    }
    for title, own in measures.items():
        found = row_of(by_name(section, title), "teacher")
        for name in (*own, "cosine", "top-1", "top-5", "overlap at 10", "CKA"):
            assert value(found[name]) == pytest.approx(1, abs=1e-5), (title, name)
            if isinstance(found[name], Interval):
                assert (found[name].low, found[name].high) == pytest.approx((1, 1), abs=1e-5)
    assert section.basis == {"patches": 40, "slides": 5, "cases": 5, "centres": 0, "patches to fit maps": 60}


def test_any_invertible_linear_view_of_the_teacher_is_perfect_by_a_fitted_map(store: Store, tmp_path: Path) -> None:
    mixing = np.random.default_rng(3).normal(size=(12, 12)) + 3 * np.eye(12)
    rows, model = scored(store, "mixed", lambda z: z @ mixing + 4)
    found = row_of(by_name(section_of(store.first, rows, [model], tmp_path), "What each"), "mixed")
    assert value(found["R2 linear map"]) == pytest.approx(1, abs=1e-3)
    assert value(found["top-1"]) == 1
    assert value(found["overlap at 10"]) < 1  # neighbours are the model's own


def test_noise_holds_nothing(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, model = scored(store, "noise", lambda z: rng.normal(size=z.shape))
    found = row_of(by_name(section_of(store.first, rows, [model], tmp_path), "What each"), "noise")
    assert value(found["R2 linear map"]) < 0.2
    assert value(found["top-1"]) < 0.3
    assert abs(found["CKA"]) < 0.15
    assert found["R2 linear map"].low <= found["R2 linear map"].value <= found["R2 linear map"].high


def test_a_student_is_scored_with_its_own_projector_and_a_fitted_map(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    projector = Projector(12, 12).eval()
    rows, teacher = scored(store, "t")
    projector.teacher_norm.set_statistics(
        torch.from_numpy(teacher.train).mean(0), torch.from_numpy(teacher.train).var(0)
    )
    rows, model = scored(store, "student", lambda z: np.tanh(z), projector=projector, named={"role": AFTER})
    section = section_of(store.first, rows, [model], tmp_path)
    own = row_of(by_name(section, "Standing in"), "student")
    with torch.inference_mode():
        made = projector.standardised(torch.from_numpy(model.val)).double().numpy()
    train = teacher.train.astype(np.float64)
    deviation = np.sqrt(train.var(0, ddof=1) + EPSILON)
    target = (teacher.val - train.mean(0)) / deviation
    correlation = np.array([np.corrcoef(made[:, i], target[:, i])[0, 1] for i in range(12)])
    variance = target.var(0)
    assert value(own["correlation"]) == pytest.approx(correlation.mean(), abs=1e-5)
    assert value(own["median correlation"]) == pytest.approx(np.median(correlation), abs=1e-5)
    assert value(own["R2 scaled"]) == pytest.approx((correlation**2 * variance).sum() / variance.sum(), abs=1e-5)
    for name in ("correlation", "median correlation", "R2 scaled"):
        assert own[name].low <= own[name].value <= own[name].high
    cosines = (made * target).sum(1) / np.linalg.norm(made, axis=1) / np.linalg.norm(target, axis=1)
    assert value(own["cosine"]) == pytest.approx(cosines.mean(), abs=1e-4)
    fitted = row_of(by_name(section, "What each"), "student")
    assert value(fitted["R2 linear map"]) > value(own["R2 scaled"])


def test_figures_are_called_and_explained_as_in_training(store: Store, tmp_path: Path) -> None:
    """No measure has two names, and none is the R2 of a standardised projection as it is."""
    rows, model = scored(store, "student", projector=Projector(12, 12).eval(), named={"role": AFTER})
    holds, stands_in = section_of(store.first, rows, [model], tmp_path).tables[:2]
    known = {FIGURES[key]: MEANINGS[key] for key in FIGURES if key not in ("loss", "explained_variance")}
    beside = ["model", "map", "top-5", "CKA"]
    own = [FIGURES[key] for key in ("correlation_mean", "correlation_median", "r2_scaled")]
    common = ["cosine", "top-1", "top-5", "overlap at 10", "CKA"]
    assert [column.name for column in holds.columns] == ["model", "map", "R2 linear map", *common, "CKA, plain"]
    assert [column.name for column in stands_in.columns] == ["model", "map", *own, *common]
    assert {c.name for c in (*holds.columns, *stands_in.columns)} == {*known, *beside}
    for column in (*stands_in.columns[2:5], holds.columns[2]):
        assert column.what.lower().startswith(known[column.name].lower() + ".")


def test_r2_of_the_linear_map_is_r2_weighted_by_variance(store: Store, tmp_path: Path) -> None:
    from pipeline.training.linear_map import fit_linear_map

    rows, model = scored(store, "m", lambda z: np.tanh(z[:, :5]))
    _, teacher = scored(store, "t")
    train = teacher.train.astype(np.float64)
    mean, deviation = train.mean(0), np.sqrt(train.var(0, ddof=1) + EPSILON)
    target = (teacher.val - mean) / deviation
    cases = np.array([slide.case_id for slide in store.plan.slides])[store.plan.slide_of_row()[rows.train]]
    made = fit_linear_map(model.train, (train - mean) / deviation, cases).predict(model.val)
    expected = r2_score(target, made, multioutput="variance_weighted")
    found = row_of(by_name(section_of(store.first, rows, [model], tmp_path), "What each"), "m")
    assert value(found["R2 linear map"]) == pytest.approx(expected, abs=1e-9)


def test_slides_are_listed_the_worst_first_with_all_in_the_record(store: Store, tmp_path: Path) -> None:
    rows, model = scored(store, "m", lambda z: np.tanh(z[:, :5]))
    section = section_of(store.first, rows, [model], tmp_path)
    table = by_name(section, "By slide")
    cosines = [value(row[4]) for row in table.rows]
    assert cosines == sorted(cosines)
    parts = section.data["by_slide"]["m"]
    assert len(parts) == len(table.rows) == 5
    assert sum(part["patches"] for part in parts) == 40
    weighted = sum(part["cosine"] * part["patches"] for part in parts) / 40
    assert weighted == pytest.approx(value(row_of(by_name(section, "What each"), "m")["cosine"]))


def test_cka_is_debiased_and_the_plain_one_stands_beside_it(store: Store, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows, noise = scored(store, "noise", lambda z: rng.normal(size=(len(z), 400)))
    _, model = scored(store, "m", lambda z: np.tanh(z[:, :5]))
    section = section_of(store.first, rows, [noise, model], tmp_path)
    teacher = torch.from_numpy(teacher_embeddings(store, rows.val))
    for one in (noise, model):
        found, own = row_of(by_name(section, "What each"), one.label), torch.from_numpy(one.val)
        assert found["CKA"] == pytest.approx(debiased_linear_cka(own, teacher), abs=1e-12)
        assert found["CKA, plain"] == pytest.approx(linear_cka(own, teacher), abs=1e-12)
        assert section.scores[1].values[one.label].value == found["CKA"]
    of_noise = row_of(by_name(section, "What each"), "noise")
    assert abs(of_noise["CKA"]) < 0.1 < 0.2 < of_noise["CKA, plain"]
    for part in section.data["by_slide"]["m"]:
        inside = np.flatnonzero(slides_of(store, rows.val) == part["name"])
        assert part["CKA"] == pytest.approx(debiased_linear_cka(torch.from_numpy(model.val[inside]), teacher[inside]))


def slides_of(store: Store, rows: np.ndarray) -> np.ndarray:
    return np.array([store.plan.slides[i].slide_id for i in store.plan.slide_of_row()[rows]])


def test_a_model_without_structure_has_no_cka_and_no_score_of_it(store: Store, tmp_path: Path) -> None:
    rows, flat = scored(store, "flat", lambda z: np.ones((len(z), 3)))
    section = section_of(store.first, rows, [flat], tmp_path)
    assert np.isnan(row_of(by_name(section, "What each"), "flat")["CKA"])
    assert [score.name for score in section.scores] == ["neighbour overlap with the teacher"]
    assert any(note.startswith("No CKA of flat: of one side") for note in section.notes)
    assert section.record()["tables"][0]["rows"][0]["CKA"] is None


def test_slides_without_figures_are_told_and_listed(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(8, 3, 7, 1))
    rows, model = scored(store, "m", lambda z: z[:, :5])
    section = section_of(store.first, rows, [model], tmp_path)
    words = "Not shown: 2 slides with 4 patches, each with fewer than 5; report.json names them."
    assert by_name(section, "By slide").note.endswith(words)
    assert words not in section.notes
    small = [{"name": "slide_2", "patches": 3}, {"name": "slide_4", "patches": 1}]
    assert section.data["not_shown"] == {"slides": small, "centres": []}
    few = make_store(tmp_path / "few.zarr", train=(20,), val=(4, 3))
    rows, model = scored(few, "m", lambda z: z[:, :5])
    section = section_of(few.first, rows, [model], tmp_path)
    assert "Not shown: 2 slides with 7 patches, each with fewer than 5; report.json names them." in section.notes
    assert not any("without a centre" in note for note in section.notes)


def test_more_slides_than_the_table_shows_are_told(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(5,) * 14)
    rows, model = scored(store, "m", lambda z: z[:, :5])
    section = section_of(store.first, rows, [model], tmp_path)
    assert len(by_name(section, "By slide").rows) == 12
    said = "Of each model, the smallest cosine comes first. The first 12 of 14 are shown, report.json has all."
    assert by_name(section, "By slide").note.endswith(said)


def test_the_contact_sheet_is_written_unless_there_are_no_pixels(store: Store, tmp_path: Path) -> None:
    rows, model = scored(store, "m", lambda z: z[:, :5])
    section = section_of(store.first, rows, [model], tmp_path)
    with Image.open(tmp_path / section.figures[0].file) as sheet:
        assert sheet.width > 700
    bare = make_store(tmp_path / "bare.zarr", train=(20, 20, 20), val=(8, 8, 8, 8, 8), pixels="none")
    rows, model = scored(bare, "m", lambda z: z[:, :5])
    other = section_of(bare.first, rows, [model], tmp_path)
    assert not other.figures
    assert any("no pixels" in note for note in other.notes)


def test_one_case_gives_no_interval_and_says_so(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(12,), failed=(25,))
    rows, model = scored(store, "m", lambda z: z[:, :5])
    section = section_of(store.first, rows, [model], tmp_path)
    cell = row_of(by_name(section, "What each"), "m")["cosine"]
    assert np.isnan(cell.low)
    assert np.isnan(cell.high)
    assert any("of one case" in note for note in section.notes)
    assert section.exclusions[0].what == "1 held-out patch of slide slide_1 (row 25)"


def test_tables_by_slide_take_the_fitted_map_of_every_model(store: Store, tmp_path: Path) -> None:
    torch.manual_seed(0)
    rows, student = scored(
        store, "student", lambda z: np.tanh(z), projector=Projector(12, 12).eval(), named={"role": AFTER}
    )
    _, plain = scored(store, "plain", lambda z: np.tanh(z))
    data = section_of(store.first, rows, [student, plain], tmp_path).data["by_slide"]
    assert data["student"] == data["plain"]


def test_differences_are_paired_and_from_the_student_before(store: Store, tmp_path: Path) -> None:
    """Against a bootstrap that copies rows; the same embeddings under another name differ by exactly nothing."""
    rows, after = scored(store, "after", lambda z: np.tanh(z), named={"role": AFTER})
    _, before = scored(store, "before", lambda z: np.sign(z[:, :6]), named={"role": BEFORE})
    _, again = scored(store, "again", lambda z: np.sign(z[:, :6]))
    _, teacher = scored(store, "teacher", is_teacher=True)
    section = section_of(store.first, rows, [teacher, after, again, before], tmp_path)
    table = by_name(section, "Difference from before")
    assert [row[0] for row in table.rows] == ["after", "again"]
    assert all((cell.value, cell.low, cell.high) == (0, 0, 0) for cell in table.rows[1][1:])

    space = TeacherSpace(store.first, rows)
    cases = np.array([store.plan.slides[i].case_id for i in store.plan.slide_of_row()[rows.val]])
    resamples = GroupResamples(cases, OPTIONS.resamples, OPTIONS.seed)
    first, second = (row_figures(space, m, space.project(m, space.fit_map(m))[FITTED]) for m in (after, before))
    gains = {"R2 linear map": [], "cosine": []}
    for counts in resamples.counts:
        copied = np.repeat(np.arange(len(cases)), counts[resamples.group_of_row])
        losses = [f.residual[copied].sum() / f.total[copied].sum() for f in (first, second)]
        gains["R2 linear map"].append(losses[1] - losses[0])
        gains["cosine"].append(first.cosine[copied].mean() - second.cosine[copied].mean())
    found = row_of(table, "after")
    for name, draws in gains.items():
        assert (found[name].low, found[name].high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])))
    assert found["cosine"].value == pytest.approx(first.cosine.mean() - second.cosine.mean())


def test_differences_are_from_the_model_that_is_asked_for(store: Store, tmp_path: Path) -> None:
    rows, after = scored(store, "after", lambda z: np.tanh(z), named={"role": AFTER})
    _, before = scored(store, "before", lambda z: z[:, :6], named={"role": BEFORE})
    _, other = scored(store, "uni", lambda z: z[:, :9])
    table = by_name(section_of(store.first, rows, [after, before, other], tmp_path, "uni"), "Difference")
    assert table.title == "Difference from uni"
    assert [row[0] for row in table.rows] == ["before", "after"]


def test_a_single_student_has_no_differences(store: Store, tmp_path: Path) -> None:
    rows, model = scored(store, "m", lambda z: z[:, :5])
    _, teacher = scored(store, "teacher", is_teacher=True)
    tables = section_of(store.first, rows, [teacher, model], tmp_path).tables
    assert not [table.title for table in tables if "Difference" in table.title]
