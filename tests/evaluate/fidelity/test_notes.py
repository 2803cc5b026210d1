"""Notes of the fidelity section: cases, chance, bounds, and where a student comes from."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import stores
from support.extraction import extract, plan_cohort, write_cohort, write_teacher
from support.fidelity import scored, section_of, teacher_embeddings
from support.stores import make_store
from support.students import seen_cases

from pipeline.cohort.plan import Plan
from pipeline.evaluate.fidelity import notes as notes_module
from pipeline.evaluate.fidelity.notes import map_notes, training_note
from pipeline.report.content import AFTER
from pipeline.store.store import Store
from pipeline.student.resolve import NamedModel
from pipeline.student.student_json import SeenBeforeJson
from pipeline.training.linear_map import CASES, RELATIVE_STRENGTHS, ROWS, LinearMap
from pipeline.training.similarity import shuffled_cka


def test_where_a_student_comes_from_is_told(store: Store, tmp_path: Path) -> None:
    plan, teacher = store.first.attributes["plan_hash"], store.first.spec.teacher["weights_sha256"]
    folder = tmp_path / "student"
    cases = {
        "same": {"plan_hash": plan, "teachers": {"t": teacher}},
        "other teacher": {"plan_hash": plan, "teachers": {"t": "f" * 64}},
        "other plan": {"plan_hash": "f" * 64, "teachers": {"t": teacher}},
        "silent": {},
    }
    notes = {}
    for label, facts in cases.items():
        rows, model = scored(store, label, named={"role": AFTER, "student": folder, **facts})
        section = section_of(store.first, rows, [model], tmp_path)
        notes[label] = " ".join(section.notes)
    assert "distilled from" not in notes["same"]
    assert "trained on another plan" not in notes["same"]
    assert "other teacher was distilled from another teacher: its own projector is not used" in notes["other teacher"]
    assert "other plan was trained on another plan than the store's: it may have seen" in notes["other plan"]
    assert "silent was trained on a plan that its folder does not name" in notes["silent"]
    rows, model = scored(store, "encoder")
    section = section_of(store.first, rows, [model], tmp_path)
    assert any("Whether encoder saw these slides in pretraining is not known" in note for note in section.notes)


@pytest.mark.parametrize(
    ("plan_hash", "found", "words"),
    [
        ("own", seen_cases(3), ""),
        ("own", seen_cases(3, 2), "or a student that it was begun from was trained on 2 of the 3 held-out cases, by"),
        ("own", seen_cases(3, 0, is_unknown=True), "was begun from a student of another plan, which is not at hand"),
        ("f" * 64, seen_cases(3), "another plan than the store's, but on none of the held-out cases, by their names"),
        (
            "f" * 64,
            seen_cases(3, 1, is_unknown=True),
            "begun from was trained on 1 of the 3 held-out cases, by another",
        ),
        ("f" * 64, seen_cases(3, 0, is_unknown=True), "another plan than the store's: it may have seen"),
        ("", seen_cases(3, 0, is_unknown=True), "a plan that its folder does not name: it may have seen"),
    ],
)
def test_what_a_student_was_trained_on_before_is_told(
    store: Store, monkeypatch: pytest.MonkeyPatch, plan_hash: str, found: SeenBeforeJson, words: str
) -> None:
    plan = store.first.plan
    monkeypatch.setattr(notes_module, "seen_before", lambda start, of: found)
    student = NamedModel(
        "s", "resnet10t", "scratch", 64, AFTER, plan_hash=plan.hash if plan_hash == "own" else plan_hash
    )
    note = training_note(student, plan)
    assert words in note
    assert bool(words) == bool(note)


@pytest.mark.slow
def test_a_strip_of_a_slide_that_is_trained_on_is_told(tmp_path: Path) -> None:
    plan = plan_cohort(write_cohort(tmp_path / "slides", 2), val_strip=0.3, patches_per_slide=40)
    store = extract(plan, tmp_path / "store.zarr", write_teacher(tmp_path / "t.safetensors")).store
    rows, model = scored(store, "m", lambda z: z[:, :5])
    section = section_of(store.first, rows, [model], tmp_path)
    assert any("Of 2 of the 2 held-out cases other patches are trained on" in note for note in section.notes)


@pytest.mark.parametrize(("cases", "words"), [(3, "at least 5"), (6, "6 cases only")])
def test_few_cases_are_told(tmp_path: Path, cases: int, words: str) -> None:
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(6,) * cases)
    rows, model = scored(store, "m", lambda z: z[:, :5])
    notes = section_of(store.first, rows, [model], tmp_path).notes
    assert any(words in note for note in notes), notes


def test_a_patient_of_several_cases_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = stores.plan_of_rows

    def by_samples(*arguments: Any) -> Plan:
        plan = made(*arguments)
        samples = (replace(s, case_id=f"TCGA-3C-AALI-{i:02}A", has_case=True) for i, s in enumerate(plan.slides))
        return replace(plan, slides=tuple(samples))

    monkeypatch.setattr(stores, "plan_of_rows", by_samples)
    store = make_store(tmp_path / "s.zarr", train=(20,), val=(6, 6))
    rows, model = scored(store, "m", lambda z: z[:, :5])
    notes = section_of(store.first, rows, [model], tmp_path).notes
    (note,) = [note for note in notes if "TCGA" in note]
    assert note.startswith("By their TCGA barcodes 1 patient has slides of several cases.")
    assert note.endswith(". Intervals may be too narrow.")


def test_an_estimate_at_the_bound_is_told_of_all_but_the_teacher(store: Store, tmp_path: Path) -> None:
    rows, copy = scored(store, "copy")
    _, teacher = scored(store, "teacher", is_teacher=True)
    notes = " ".join(section_of(store.first, rows, [copy, teacher], tmp_path).notes)
    assert "at the bound of its scale (copy)" in notes


def test_ties_and_chance_are_told(store: Store, tmp_path: Path) -> None:
    rows, model = scored(store, "m", lambda z: z[:, :5])
    notes = " ".join(section_of(store.first, rows, [model], tmp_path).notes)
    level = shuffled_cka(torch.from_numpy(model.val), torch.from_numpy(teacher_embeddings(store, rows.val)))
    assert (
        f"By chance top-1 is 0.025, top-5 0.125, the overlap 0.256, CKA 0, and the plain CKA {level:.3f} (m)" in notes
    )
    assert "the same embedding as another" not in notes


def test_how_the_strength_of_a_map_was_chosen_is_told_where_it_matters() -> None:
    def fitted(strength: float, left_out: str) -> LinearMap:
        return LinearMap(*(np.zeros(1) for _ in range(4)), strength=strength, left_out=left_out)

    weak, strong = RELATIVE_STRENGTHS[0], RELATIVE_STRENGTHS[-1]
    assert map_notes({"a": fitted(weak, CASES), "b": fitted(weak, CASES)}) == []
    by_rows, at_end = map_notes({"a": fitted(weak, ROWS), "b": fitted(strong, CASES)})
    assert "chosen by leaving out single patches" in by_rows
    assert at_end.startswith("The ridge of the linear map is the strongest of its grid for b: ")
