"""The header of a card as the Hugging Face Hub reads it: licence, base models, tags, and figures as `model-index`.

All of it is taken from the run's records, from a report of `g2l evaluate`, or from the user; what is not known is left
out. The fields are those of https://github.com/huggingface/hub-docs/blob/main/modelcard.md.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from pipeline.config.model_names import HUB_PREFIX, PRETRAINED, SCRATCH
from pipeline.encoders.hub import repository_of
from pipeline.encoders.table import EncoderSpec
from pipeline.training.held_out import FIGURES, figures_of
from pipeline.training.run_folder import HeldOut

HEADER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
"""The header of a card."""
TERMS = "## Terms\n"
"""Heading of the card's section on terms."""
TERMS_FILE = "LICENSE.md"
"""The terms by themselves, beside a card whose licence is none of the hub's: `license_link` names it."""
MAY_PASS_ON = frozenset({"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"})
"""Licences under which everybody may pass on what is derived."""
HUB_LICENCES = MAY_PASS_ON | {"cc-by-nd-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nc-nd-4.0"}
"""Licences that the hub knows by name, of those that weights are published under."""
OTHER = "other"
"""What the hub calls any other licence, or several."""
TASK = "image-feature-extraction"
"""The hub's name of what a student does."""
REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9_][A-Za-z0-9_.-]*")
"""What a repository of the hub is called in full: OWNER/NAME. The hub's client has further rules, such as a length."""
ARXIV_PAPER = "2510.11176"
"""The method's paper on arXiv: the hub makes the tag `arxiv:2510.11176` of a link to it."""
PAPER_SECTION = f"\n## Paper\n\nThe method: <https://arxiv.org/abs/{ARXIV_PAPER}>.\n"
USE = "## Use\n"
"""Heading of the card's section with the first snippet."""
FETCHED = "student"
"""The folder that the card of the hub fetches the student to, and names in its snippets."""
FETCH = "hf download {repository} --local-dir " + FETCHED
UNNAMED_REPOSITORY = "OWNER/NAME"
"""The repository in a card that is not yet published."""
HUB_USE = f"""
Fetch the folder, which the snippets call `{FETCHED}`, and the sections on other tools STUDENT:

```bash
{FETCH.format(repository=UNNAMED_REPOSITORY)}
```

With G2L, which also maps embeddings into the teacher's space:

```python
import g2l

model, transform, projector = g2l.load_student("{FETCHED}")
embedding = model(transform(patch)[None])  # patch: a PIL image, RGB
as_teacher = projector.as_teacher(embedding)
```

With timm alone:
"""
"""How a student is had from the hub: what the card of a folder does not say."""
NOT_OF_THE_STUDENT = ("cost",)
"""Sections of a report that say something of the machine, not of the student."""
NAMED_BY_FILE = ("patches",)
"""Sections of a report whose title ends with the name of a file or folder, behind a colon, and whose scores begin with
it.
"""


def name_problem(name: str) -> str:
    """Why a name is not that of a repository of the hub, by its client's own rules; "" if it is."""
    if not REPOSITORY.fullmatch(name):
        return "Give OWNER/NAME"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return str(error).split(": '")[0].rstrip(".")
    return ""


def hub_licence(models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`license`, and of a licence that the hub does not know, or of several, `license_name` and `license_link`.

    Args:
        models: records of what the student's weights come from (`EncoderSpec.record`, with `weights`).
    """
    stated = {str(model.get("licence") or "unknown").lower() for model in models if model["weights"] != SCRATCH}
    if len(stated) == 1 and stated <= HUB_LICENCES:
        return {"license": stated.pop()}
    if any("non-commercial" in licence or "-nc" in licence for licence in stated):
        name = "inherited-non-commercial"
    else:
        name = "inherited-unknown" if any("unknown" in each or "see " in each for each in stated) else "inherited"
    return {"license": OTHER, "license_name": name, "license_link": TERMS_FILE}


def base_models(start: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """`base_model`: the page of the weights that the student started from, and those of its teachers.

    `base_model_relation` is there only if the start stands alone: the hub knows training on (finetune), but not
    distilling. Of weights in a file, the page is known if the encoder was named by it.
    """
    pages = []
    for model in (start, *teachers):
        of_page = model["weights"] == PRETRAINED or model["source"].startswith(HUB_PREFIX)
        pages.append(repository_of(EncoderSpec.from_record(dict(model))) * (of_page and model["weights"] != SCRATCH))
    known = list(dict.fromkeys(filter(None, pages)))
    if not known:
        return {}
    return {"base_model": known} | ({"base_model_relation": "finetune"} if known == pages[:1] else {})


def held_out_results(figures: Mapping[str, HeldOut], plan_hash: str) -> list[EvalResult]:
    """Held-out figures of the run at the exported step, a data set a teacher, named as what they are.

    Args:
        figures: of `RunFolder.held_out_figures`; empty if nothing was held out.
    """
    results = []
    for teacher, (_, after) in figures.items():
        of = f", teacher {teacher}" if teacher else ""
        results += [
            EvalResult(
                task_type=TASK,
                dataset_type="g2l-held-out",
                dataset_name=f"Patches that the run held out (plan {plan_hash[:12]}{of})",
                dataset_config=teacher or None,
                metric_type=key.replace("_", "-"),
                metric_name=FIGURES[key],
                metric_value=after[key],
            )
            for key in figures_of(after)
            if math.isfinite(after[key])
        ]
    return results


def report_results(report: Mapping[str, Any], weights_sha256: str) -> list[EvalResult]:
    """Scores of a report of `g2l evaluate` for the model of these weights, with their intervals; empty if it has none.
    Names of files and cases in the report are left out.

    Raises:
        KeyError, TypeError, ValueError, AttributeError: the report is damaged.
    """
    labels = [each["label"] for each in report["models"] if each.get("weights_sha256") == weights_sha256]
    if not labels:
        return []
    results = []
    for key, section in report["sections"].items():
        title, of_file = _without_file(key, section["title"])
        for name, values in section["scores"].items() if key not in NOT_OF_THE_STUDENT else ():
            score = name.removeprefix(of_file)
            given = values.get(labels[0])
            number = given if isinstance(given, dict) else {"value": given}
            if number["value"] is None or not math.isfinite(number["value"]):
                continue
            interval = {end: number[end] for end in ("low", "high") if number.get(end) is not None}
            results.append(
                EvalResult(
                    task_type=TASK,
                    dataset_type=f"g2l-evaluate-{key}",
                    dataset_name=f"g2l evaluate: {title}",
                    metric_type=re.sub(r"[^a-z0-9]+", "-", score.lower()).strip("-"),
                    metric_name=score,
                    metric_value=number["value"],
                    metric_args=interval or None,
                )
            )
    return results


def _without_file(key: str, title: str) -> tuple[str, str]:
    """A section's title without the name of a file, and how its scores begin with that name; "" if they do not."""
    if key not in NAMED_BY_FILE:
        return title, ""
    plain, _, name = title.partition(": ")
    return plain, f"{name}, "


def hub_header(
    start: Mapping[str, Any],
    teachers: Sequence[Mapping[str, Any]],
    results: Sequence[EvalResult],
    datasets: Sequence[str] = (),
) -> ModelCardData:
    """The header.

    Args:
        start: record of what the student started from, with its own name.
        teachers: records of its teachers.
        results: its figures.
        datasets: names of the hub's data sets that it was trained on, as the user gives them.
    """
    return ModelCardData(
        library_name="timm",
        pipeline_tag=TASK,
        tags=[TASK, "timm", "pathology", "knowledge-distillation", f"arxiv:{ARXIV_PAPER}"],
        datasets=list(datasets) or None,
        model_name=f"{start['name']} distilled from {' and '.join(each['name'] for each in teachers)}",
        eval_results=list(results) or None,
        **hub_licence([*teachers, start]),
        **base_models(start, teachers),
    )


def with_header(card: str, header: ModelCardData) -> str:
    """The card with this header in place of its own, with how the student is had from the hub, and with a link to the
    paper.
    """
    body = HEADER.sub("", card, count=1).replace(USE, f"{USE}{HUB_USE}", 1)
    for place in ("local-dir:PATH", '("PATH")'):
        body = body.replace(place, place.replace("PATH", FETCHED))
    return f"---\n{header.to_yaml()}\n---\n{body.rstrip()}\n{PAPER_SECTION}"


def with_repository(card: str, repository: str) -> str:
    """The card of `with_header`, whose command that fetches the student names the repository."""
    return card.replace(FETCH.format(repository=UNNAMED_REPOSITORY), FETCH.format(repository=repository))
