"""Cases that are not known: told when a manifest is made, when slides are planned and trained on, and in the card."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import stores as store_factory
from support.commands import call_g2l
from support.extraction import made_up_plan, write_cohort

from pipeline.cohort.cases import case_facts, cases_warning, counted_cases, parted_patients
from pipeline.cohort.manifest.read import parse_manifest, read_manifest, write_manifest
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import Plan, SlidePlan
from pipeline.cohort.plan_hdf5 import read_plan
from pipeline.evaluate.slide_benchmark.data import read_slide_set
from pipeline.student.card import split_words
from stages.reports.plan import estimate
from stages.train_student import train_student


def test_make_manifest_leaves_unknown_cases_empty_and_says_so(tmp_path: Path) -> None:
    for name in ("a.svs", "b.svs", "brca_tcga-3c-aali-01.svs"):
        (tmp_path / name).touch()
    code, out, _ = call_g2l("make-manifest", tmp_path, "--out", tmp_path / "m.csv")
    assert code == 0
    assert "3 slides of 1 case (of 2 slides not known)" in out
    assert "warning: cases are not known: 2 of 3 slides have no case_id" in out
    rows = parse_manifest(tmp_path / "m.csv").rows
    assert [(row.case_id, row.has_case) for row in rows] == [("a", False), ("b", False), ("TCGA-3C-AALI", True)]
    assert (tmp_path / "m.csv").read_text().splitlines()[1] == "a,a.svs,,"
    write_manifest(tmp_path / "again.csv", rows)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "m.csv").read_bytes()


def slides_of(*has_case: bool | None, case_id: str = "") -> list[SlidePlan]:
    slide = made_up_plan().slides[0]
    return [
        replace(slide, slide_id=f"s{i}", path=f"s{i}.svs", case_id=case_id or f"s{i}", has_case=has)
        for i, has in enumerate(has_case)
    ]


def card_of(slides: list[SlidePlan]) -> str:
    facts = case_facts(slides)
    return split_words({"val_rows": 9, "val_strip": None, "cases": vars(facts)})


def test_the_card_says_what_is_known() -> None:
    known = slides_of(True, True, case_id="k")
    assert "The split is by case: no case, and so no slide, is on both sides." in card_of(known)
    assert cases_warning(case_facts(known)) == ""
    for slides, words in (
        (slides_of(True, False, False), "2 of 3 slides have no known case"),
        (
            slides_of(None, None),
            "It is not known whether they were: the plan, of an earlier version, does not record it for 2 of 2 slides",
        ),
        (slides_of(True, True), "which is each slide's own id"),
    ):
        assert words in card_of(slides)
        assert "no case, and so no slide" not in card_of(slides)
        assert cases_warning(case_facts(slides))
    assert cases_warning(case_facts(slides_of(False))) == ""  # one slide is on one side only


def test_an_old_plan_with_cases_of_other_names_gave_them() -> None:
    assert case_facts(slides_of(None, None, case_id="k")).all_known
    assert counted_cases(slides_of(None, None, case_id="k")) == "1 case"
    assert counted_cases(slides_of(False, False)) == "unknown cases"


def test_plan_warns_and_a_split_in_space_does_not(tmp_path: Path) -> None:
    rows = [replace(row, has_case=False) for row in read_manifest(write_cohort(tmp_path)).rows]
    write_manifest(tmp_path / "m.csv", [replace(row, path=row.path) for row in rows])
    options = ("--patch-px", 64, "--min-tissue", 0, "--patches-per-slide", 4)
    code, out, _ = call_g2l("plan", tmp_path / "m.csv", "--out", tmp_path / "p.h5", *options)
    assert code == 0
    assert "2 slides of unknown cases" in out
    assert "warning: cases are not known: 2 of 2 slides have no case_id" in out
    strip = replace(
        read_plan(tmp_path / "p.h5"), config=read_plan(tmp_path / "p.h5").config.model_copy(update={"val_strip": 0.2})
    )
    assert "cases are not known" not in estimate(strip)


def test_plan_tells_of_barcodes_among_slides_without_a_case() -> None:
    rows = [ManifestRow(f"s{i}", f"x_tcga-3c-aali-{i}.svs", f"s{i}", has_case=False) for i in range(3)]
    assert "their names have TCGA barcodes of 1 case)" in cases_warning(case_facts(rows))


@pytest.mark.parametrize(
    ("rows", "parted"),
    [
        ([("TCGA-3C-AALI-01A", "a"), ("tcga-3c-aali-01Z", "b"), ("TCGA-3C-AALK", "c")], 1),  # samples for patients
        ([("P1", "TCGA-3C-AALI-01Z"), ("P2", "x_tcga.3c.aali-11A"), ("P3", "c")], 1),  # by the names of slides
        ([("TCGA-3C-AALI", "a"), ("TCGA-3C-AALI", "b"), ("TCGA-3C-AALK", "TCGA-3C-AALI-01Z")], 0),  # the case counts
        ([("TCGA-3C-AALI-01Z", "TCGA-3C-AALI-01Z"), ("TCGA-3C-AALI-02Z", "TCGA-3C-AALI-02Z")], 1),  # ids of slides
        ([("P1", "a"), ("P2", "b")], 0),
    ],
)
def test_a_patient_of_several_cases_is_told(rows: list[tuple[str, str]], parted: int) -> None:
    """Samples (`TCGA-XX-XXXX-01A`) in the place of patients put a patient on both sides of the split."""
    slides = [ManifestRow(name, f"{name}.svs", case_id) for case_id, name in rows]
    facts = case_facts(slides)
    words = "by their TCGA barcodes 1 patient has slides of several cases"
    assert facts.parted == parted == len(parted_patients((case_id, [name]) for case_id, name in rows))
    assert (words in cases_warning(facts)) == bool(parted)
    split = split_words({"val_rows": 9, "val_strip": None, "cases": vars(facts)})
    assert (words in split) == bool(parted)
    assert ("no case, and so no slide" in split) != bool(parted)


def test_feature_files_belong_to_the_case_of_their_barcode(tmp_path: Path) -> None:
    for name in ("tcga-3c-aali-01z", "BRCA_TCGA-A1-A0SB-01Z"):
        (tmp_path / f"{name}.h5").touch()
    (tmp_path / "t.csv").write_text("case_id,y\nTCGA-3C-AALI,1\nTCGA-A1-A0SB,0\n")
    found = read_slide_set(tmp_path / "t.csv", "y", [("m", tmp_path)])
    assert {bag.name: bag.slides for bag in found.bags} == {
        "TCGA-3C-AALI": ("tcga-3c-aali-01z",),
        "TCGA-A1-A0SB": ("BRCA_TCGA-A1-A0SB-01Z",),
    }


@pytest.mark.slow
def test_training_warns_and_its_card_says_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = store_factory.plan_of_rows

    def without_cases(*arguments: Any) -> Plan:
        plan = made(*arguments)
        return replace(plan, slides=tuple(replace(s, case_id=s.slide_id, has_case=False) for s in plan.slides))

    monkeypatch.setattr(store_factory, "plan_of_rows", without_cases)
    store = store_factory.make_store(tmp_path / "s.zarr", train=(8, 8), val=(8,))
    source = store_factory.dropping_cnn(tmp_path / "cnn")
    train_student(store, tmp_path / "run", store_factory.train_config(source, epochs=1))
    assert "warning: cases are not known: 3 of 3 slides have no case_id" in capsys.readouterr().err
    card = (tmp_path / "run" / "student" / "README.md").read_text()
    assert "(slides: 2, cases: not known)" in card
    assert "3 of 3 slides have no known case" in card
    assert "no case, and so no slide" not in card
