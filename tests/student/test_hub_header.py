"""The header says what the records say, as the hub's own reader reads it, and nothing else."""

import math
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pipeline.encoders.table import ENCODERS
from pipeline.student.hub_header import (
    base_models,
    held_out_results,
    hub_header,
    hub_licence,
    name_problem,
    report_results,
    with_header,
)


def record(name: str = "h-optimus-0", weights: str = "pretrained", **changed: Any) -> dict[str, Any]:
    return ENCODERS[name].record() | {"weights": weights} | changed


@pytest.mark.parametrize(
    ("licences", "expected"),
    [
        (["Apache-2.0", "apache-2.0"], "apache-2.0"),
        (["MIT", "Apache-2.0"], "inherited"),
        (["Apache-2.0", ""], "inherited-unknown"),
        (["gated, see page"], "inherited-unknown"),
        (["non-commercial", "Apache-2.0"], "inherited-non-commercial"),
        (["cc-by-nc-nd-4.0"], "cc-by-nc-nd-4.0"),
        (["Apache-2.0, research only"], "inherited"),
    ],
)
def test_a_licence_is_inherited_or_named_other(licences: list[str], expected: str) -> None:
    models = [record(licence=licence) for licence in licences]
    said = hub_licence([*models, record(weights="scratch", licence="MIT")])
    assert said.get("license_name", said["license"]) == expected
    assert (said["license"] == "other") == ("license_link" in said)


def test_base_models_are_pages_that_are_known() -> None:
    teacher, scratch = record(), record("hibou-l", "scratch")
    file = record("hibou-l", "hibou.safetensors")
    own = record(weights="pretrained", source="local-dir:/home/somebody/run/student")
    timm_file = record(weights="x.safetensors", source="timm:vit_small_patch16_224")
    assert base_models(scratch, [teacher]) == {"base_model": ["bioptimus/H-optimus-0"]}
    assert base_models(file, [teacher]) == {"base_model": ["histai/hibou-L", "bioptimus/H-optimus-0"]}
    assert base_models(file, [own]) == {"base_model": ["histai/hibou-L"], "base_model_relation": "finetune"}
    assert base_models(timm_file, [own]) == {}


def test_figures_of_a_report_are_those_of_these_weights_alone() -> None:
    values = {"a": {"value": 0.5, "low": None, "high": None}, "b": {"value": 0.25}}
    sections = {
        "slides": {"title": "Slides", "scores": {"AUROC, mean": values, "none": {"a": {"value": None}}}},
        "cost": {"title": "Cost", "scores": {"times faster": values}},
    }
    models = [{"label": "a", "weights_sha256": "1"}, {"label": "b", "weights_sha256": "2"}, {"label": "c"}]
    (only,) = report_results({"models": models, "sections": sections}, "1")
    assert (only.metric_type, only.metric_value, only.metric_args) == ("auroc-mean", 0.5, None)
    assert report_results({"models": models, "sections": sections}, "3") == []


def test_names_of_files_in_a_report_are_left_out() -> None:
    """Of a patch benchmark, whose title and scores have that of its table."""
    scores = {"ward 7: Smith, balanced accuracy (linear probe)": {"a": {"value": 0.5}}}
    sections = {
        "patches": {"title": "Patch benchmark: ward 7: Smith", "scores": scores},
        "slides": {"title": "Slide benchmark: TP53", "scores": {"TP53, AUROC": {"a": {"value": 0.7}}}},
    }
    results = report_results({"models": [{"label": "a", "weights_sha256": "1"}], "sections": sections}, "1")
    assert [(each.dataset_name, each.metric_name, each.metric_type) for each in results] == [
        ("g2l evaluate: Patch benchmark", "balanced accuracy (linear probe)", "balanced-accuracy-linear-probe"),
        ("g2l evaluate: Slide benchmark: TP53", "TP53, AUROC", "tp53-auroc"),
    ]


def test_the_hubs_reader_reads_back_what_was_written() -> None:
    figures = {each: ({"cosine": 0.0}, {"cosine": 0.5, "cka": math.nan}) for each in ("a", "b: #c")}
    results = held_out_results(figures, "f" * 64)
    teachers = [record(), record("uni") | {"name": "b: #c\nlicense: mit"}]
    card = with_header("---\nlicense: other\n---\n\n# Title\n", hub_header(record("hibou-l"), teachers, results))
    header = ModelCard(card).data
    assert header.license_name == "inherited-non-commercial"
    assert header.license == "other"
    assert [each.dataset_config for each in header.eval_results] == ["a", "b: #c"]
    assert [each.metric_value for each in header.eval_results] == [0.5, 0.5]
    assert header.datasets is None
    assert card.count("---\n") == 2
    assert "\n# Title\n" in card
    assert "https://arxiv.org/abs/2510.11176" in card


@pytest.mark.parametrize("name", ["me/x", "Me_1/x", "a-b/c.d_e-f", f"me/{'x' * 93}"])
def test_names_of_repositories_are_those_that_the_hub_takes(name: str) -> None:
    assert name_problem(name) == ""


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("me/x..y", "Cannot have -- or .."),
        ("me/x--y", "Cannot have -- or .."),
        ("me/x.git", "cannot end by '.git'"),
        ("me/x.", "cannot start or end"),
        ("me/x-", "cannot start or end"),
        (f"me/{'x' * 97}", "maximum length is 96"),
        ("me", "Give OWNER/NAME"),
        ("a/b/c", "Give OWNER/NAME"),
        (".me/x", "Give OWNER/NAME"),
        ("", "Give OWNER/NAME"),
        ("me/x\n", "Give OWNER/NAME"),
    ],
)
def test_names_that_the_hub_refuses_are_refused_before(name: str, words: str) -> None:
    assert words in name_problem(name)
