"""A run whose record lacks something: every command that reads runs names the file, and shows no traceback."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.commands import call_g2l
from support.extraction import write_cohort

RECORDS = ("{}", '{"teacher": {}, "student": {}}', '{"teacher": [], "student": 3, "store": null}', "[]", "")
ENTRIES: tuple[dict[str, Any], ...] = (
    {"version": "x"},
    {"version": None},
    {"versions": 5},
    {"further_teachers": 5},
    {"further_teachers": [{"teacher": {"name": "t"}, "weight": "z", "content": ""}]},
)
"""Entries that are damaged in a record that is right otherwise."""


@pytest.fixture(scope="module")
def slides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one slide."""
    return write_cohort(tmp_path_factory.mktemp("slides"), num_slides=1).parent


@pytest.mark.parametrize("record", [*RECORDS, *ENTRIES], ids=str)
def test_a_damaged_record_of_a_run_is_named(
    trained: Path, slides: Path, tmp_path: Path, record: str | dict[str, Any]
) -> None:
    run, store = shutil.copytree(trained / "run", tmp_path / "run"), trained / "store.zarr"
    sound = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(record if isinstance(record, str) else json.dumps(sound | record))
    student = ("--student", f"local-dir:{trained / 'start'}", "--weights", "scratch")
    evaluate = ("evaluate", "--store", store, "--no-cost", "--out", tmp_path / "report", "--models")
    for command in (
        ("inspect", run),
        ("export", run, "--out", tmp_path / "student"),
        ("embed", run, slides, "--out", tmp_path / "embedded", "--layout", "trident"),
        ("train-student", store, "--out", run, *student),
        *((*evaluate, f"{run}{which}") for which in ("", "@before", "@teacher")),
    ):
        code, _, err = call_g2l(*command)
        assert code == 1, (command, err)
        assert "Traceback" not in err, (command, err)
        assert str(run) in err, (command, err)
