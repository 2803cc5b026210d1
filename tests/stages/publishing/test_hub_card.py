"""`export --hub-card`: a header that the hub's own reader takes, with the figures of the run and of a report."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from support.commands import call_g2l

from pipeline.base.errors import ConfigError
from pipeline.config.stages import ExportConfig
from pipeline.encoders.build import build_encoder
from pipeline.student.hub_header import with_repository
from pipeline.training.run_folder import RunFolder
from stages.export import export_student
from stages.publishing.hub_card import HubCard, asked_card


@pytest.fixture
def report(run: Path, tmp_path: Path) -> Path:
    """A report of `g2l evaluate` with one score, of the run's student and of a model of other weights."""
    student = build_encoder(f"local-dir:{run / 'student'}", "pretrained", 32)
    models = [
        {"label": "other", "weights_sha256": "0" * 64},
        {"label": "ours", "weights_sha256": student.weights_sha256},
    ]
    scores = {"k-NN": {"other": {"value": 0.1}, "ours": {"value": 0.75, "low": 0.5, "high": 0.9}}}
    sections = {"patches": {"title": "Tissue classes", "scores": scores}}
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "report.json").write_text(json.dumps({"models": models, "sections": sections}))
    return tmp_path / "report"


def test_the_header_has_the_runs_figures_and_those_of_the_report(run: Path, report: Path, tmp_path: Path) -> None:
    out = tmp_path / "student"
    code, said, errors = call_g2l(
        "export", run, "--out", out, "--hub-card", "--report", report, "--dataset", "owner/tiles"
    )
    assert code == 0, errors
    assert f"g2l publish {out} --repo OWNER/NAME" in said
    header = ModelCard((out / "README.md").read_text()).data
    assert (header.library_name, header.license, header.license_link) == ("timm", "other", "LICENSE.md")
    assert "A student inherits its teacher's terms" in (out / "LICENSE.md").read_text()
    assert header.datasets == ["owner/tiles"]
    assert "arxiv:2510.11176" in header.tags
    shown = {(each.dataset_type, each.metric_name): each for each in header.eval_results}
    scored = shown["g2l-evaluate-patches", "k-NN"]
    assert (scored.metric_value, scored.metric_args) == (0.75, {"low": 0.5, "high": 0.9})
    ((_, after),) = RunFolder(run).held_out_figures().values()
    assert shown["g2l-held-out", "cosine"].metric_value == after["cosine"]


def test_the_snippets_of_the_card_run_where_its_command_fetched_the_folder(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder `student` below the working one; every snippet of the section on use, in its order."""
    code, _, errors = call_g2l("export", run, "--out", tmp_path / "student", "--hub-card")
    assert code == 0, errors
    card = (tmp_path / "student" / "README.md").read_text()
    assert "hf download OWNER/NAME --local-dir student" in card
    assert "hf download me/it --local-dir student" in with_repository(card, "me/it")
    assert "local-dir:PATH" not in card
    assert '"PATH"' not in card
    use = card.partition("## Use")[2].partition("\n## ")[0]
    snippets = re.findall(r"```python\n(.*?)```", use, re.DOTALL)
    assert len(snippets) == 2
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {"patch": Image.new("RGB", (32, 32), "purple")}
    exec(snippets[0], scope)
    first = scope["embedding"]
    assert scope["as_teacher"].shape == (1, 12)
    exec(snippets[1], scope)
    assert torch.allclose(scope["embedding"], first, atol=1e-5)


def test_without_the_option_the_card_is_as_before(run: Path, tmp_path: Path) -> None:
    export_student(run, tmp_path / "student")
    text = (tmp_path / "student" / "README.md").read_text()
    assert text.startswith("---\nlibrary_name: timm\nlicense: other\ntags: [")
    assert "arxiv" not in text
    assert not (tmp_path / "student" / "LICENSE.md").exists()


def test_a_report_of_other_models_is_refused_and_nothing_is_written(run: Path, report: Path, tmp_path: Path) -> None:
    path = report / "report.json"
    other = json.loads(path.read_text())
    other["models"].pop()
    for said, fault in ((other, "no figures of this student"), ({"models": 3}, "damaged")):
        with pytest.raises(ConfigError, match=fault):
            export_student(run, tmp_path / "student", ("timm",), HubCard(path, said, ()))
        assert not (tmp_path / "student").exists()


def test_what_cannot_stand_in_a_header_is_refused_before_the_work(tmp_path: Path) -> None:
    assert asked_card(ExportConfig()) is None
    with pytest.raises(ConfigError, match="Add --hub-card"):
        asked_card(ExportConfig(dataset=["a/b"]))
    with pytest.raises(ConfigError, match="not the name of a data set"):
        asked_card(ExportConfig(hub_card=True, dataset=["https://a/b"]))
    with pytest.raises(ConfigError, match="not a report"):
        asked_card(ExportConfig(hub_card=True, report=tmp_path))
