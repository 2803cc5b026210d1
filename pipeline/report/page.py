"""Write the report as one HTML file that opens anywhere: styles and pictures inside, nothing fetched, no script.

The template escapes everything that comes from files, and a Content-Security-Policy forbids whatever would still slip
through: scripts, frames, requests. `report.json` has what the page has no room for.
"""

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from io import BytesIO
from numbers import Real
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from pipeline.base.outside import read_bytes
from pipeline.base.units import format_share
from pipeline.disk.files import sha256_json, write_json, write_text
from pipeline.report.cells import EN_DASH, MINUS, PRINT_COMPARED, Shown, as_shown, number_of, shown_column, shown_table
from pipeline.report.content import AFTER, Column, Figure, Report, ReportModel, Score, Section

TEMPLATE_FILE = "report.html.j2"
REPORT_FILE = "report.json"
"""The report for programs, which is written before the page for people."""
MAX_EXCLUSIONS = 200
"""Exclusions of a section that the page shows; `report.json` has all."""
CSS_PX_PER_INCH = 96
UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")
"""What HTML or UTF-8 cannot hold, such as bytes of file names that were no UTF-8, and what turns the direction of the
text behind it.
"""


def write_report(report: Report, folder: Path, figures: Sequence[Figure] = ()) -> None:
    """Write `report.json` and `report.html`, each complete or absent.

    Args:
        folder: where the figures are already.
        figures: those of the whole report, shown before the first section.

    Raises:
        OSError: a figure is not there, or the folder cannot be written.
    """
    page = render_page(report, folder, figures)
    record = report.record() | {"figures": [figure.file for figure in figures]}
    write_json(folder / REPORT_FILE, _without_nan(record))
    write_text(folder / "report.html", page)


def render_page(report: Report, folder: Path, figures: Sequence[Figure] = ()) -> str:
    """The whole page.

    Args:
        folder: where the files of the figures (PNG) are.
        figures: those of the whole report, shown before the first section.

    Raises:
        OSError: a figure is not there or no picture.
    """
    template = resources.files("pipeline").joinpath("data", TEMPLATE_FILE).read_text("utf-8")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.from_string(template).render(
        title=report.title,
        reference=report.reference,
        summary=_summary(report),
        glance=_glance(report),
        glance_notes=_glance_notes(report),
        figures=[_picture(figure, folder) for figure in figures],
        sections=[_section(section, folder) for section in report.sections],
        compared=f"{report.noun.capitalize()}s",
        models=[{"label": model.label, "record": flat(_known(model.record))} for model in report.models],
        settings=flat(report.settings),
        settings_hash=sha256_json(_without_nan(report.settings)),
        run=flat({name: value for name, value in report.run.items() if name != "versions"}),
        versions=flat(report.run.get("versions", {})),
    )
    return UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", page)


def _summary(report: Report) -> list[str]:
    """What the report is about, in a few sentences."""
    titles = ", ".join(section.title for section in report.sections)
    compared = _counted(len(report.models), report.noun)
    sentences = [f"{compared}, {_counted(len(report.sections), 'part')}: {titles}."]
    if not report.sections:
        sentences = [f"{compared}; nothing was measured."]
    by_label = {model.label: model for model in report.models}
    reference = by_label.get(report.reference)
    if reference is None or len(report.models) < 2:
        return sentences
    role = f", the {reference.role}" if reference.role not in ("", report.reference) else ""
    sentences.append(f"The others are compared with {report.reference}{role}.")
    for model in report.models:
        if model.role == AFTER and model.num_params and reference.num_params:
            share = model.num_params / reference.num_params
            sentences.append(f"{model.label}, the {model.role}, has {format_share(share)} of its parameters.")
    return sentences


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _basis(count: int, name: str) -> str:
    """A count of a section's basis, whose names are plural in their first word: 1 case, 2 cases."""
    first, _, rest = name.partition(" ")
    return f"{count:,} {first.removesuffix('s') if count == 1 and first != 'classes' else first} {rest}".rstrip()


def _glance(report: Report) -> dict[str, Any]:
    """Size and headline scores of every model, and of labels that have scores but are no model, such as a set of
    features. What there is more of goes down the page: a row a score below its section, or a row a model. A report
    without models has no sizes.
    """
    models = {model.label: model for model in report.models}
    scored = [(section.title, score) for section in report.sections for score in section.scores]
    labels = _labels(report)
    roles = [_words_below(models[label], report.of_features) if label in models else "" for label in labels]
    names, titles = [score.name for _, score in scored], [title for title, _ in scored]
    lines = [_compared(score, labels, report.reference) for _, score in scored]
    title = "Headline scores"
    if not report.of_features:
        names, titles, lines = ["parameters", *names], ["", *titles], [_sizes(report, labels), *lines]
        title = "Size and headline scores"
    if len(labels) > len(scored):
        heads = [Shown(label, role) for label, role in zip(labels, roles, strict=True)]
        columns = [Column(report.noun), *map(Column, names)]
        return as_shown(title, columns, [heads, *lines], groups=["", *titles], print_columns=PRINT_COMPARED)
    heads = [Shown(name, title) for name, title in zip(names, titles, strict=True)]
    columns, cells = [Column("score"), *map(Column, labels)], [heads, *zip(*lines, strict=True)]
    return as_shown(title, columns, cells, under=["", *roles], print_columns=PRINT_COMPARED)


def _words_below(model: ReportModel, is_features: bool) -> str:
    """The words below a label: the model's role, or the encoder that the files of features name."""
    if is_features:
        return f"encoder {model.record['encoder']}" if model.record.get("encoder") else "encoder not named in the files"
    return model.role


def _labels(report: Report) -> list[str]:
    """Labels of the models, then of what else has scores."""
    models = [model.label for model in report.models]
    scores = [score for section in report.sections for score in section.scores]
    return list(dict.fromkeys([*models, *(label for score in scores for label in score.values)]))


def _sizes(report: Report, labels: Sequence[str]) -> list[Shown]:
    """The number of parameters of each label; nothing for those that are no model."""
    params = {model.label: model.num_params for model in report.models}
    return [_size(params.get(label, 0), params.get(report.reference, 0), len(params)) for label in labels]


def _size(num_params: int, reference: int, num_models: int) -> Shown:
    """Parameters of a model and their share of the reference's; 0 is a number that is not known."""
    if num_params <= 0:
        return Shown(number=True, missing=True)
    share = f"{format_share(num_params / reference)} of reference" if reference and num_models > 1 else ""
    return Shown(_words(num_params), share, number=True)


def _compared(score: Score, labels: Sequence[str], reference: str) -> list[Shown]:
    """A score of each label, with the difference from its reference where it is known: -0.012 (-0.03 to 0.01)."""
    column = Column(score.name, digits=1 if _largest(score) >= 10 else 3)
    values = shown_column(column, [score.values.get(label) for label in labels])
    base = score.reference or reference
    others = [score.differences.get(label) if label != base else None for label in labels]
    return [
        value if value.missing or difference.missing else replace(value, difference=_in_words(difference))
        for value, difference in zip(values, shown_column(column, others), strict=True)
    ]


def _in_words(difference: Shown) -> str:
    """A difference with its sign; one that is rounded to 0 has none."""
    positive = not difference.text.startswith(MINUS) and difference.text.strip("0.") != ""
    interval = f" ({difference.interval.replace(EN_DASH, ' to ')})" if difference.interval else ""
    return f"{'+' if positive else ''}{difference.text}{interval}"


def _glance_notes(report: Report) -> list[str]:
    """What the small numbers of the first table are, a paragraph each."""
    small = "Small numbers below a score are its 95 % confidence interval."
    if any(score.is_cost for section in report.sections for score in section.scores):
        small += " Below how many times faster a model is stand the least and the largest of all rounds of timing."
    notes = [f"{small} A dash is a number that is not defined or was not measured."]
    if compared := [score for section in report.sections for score in section.scores if score.differences]:
        notes.append(
            f"The signed number below is the difference from {_references(compared, report.reference)}, with the 95 % "
            "confidence interval of the difference in brackets. An interval that covers 0 does not show a difference, "
            "and does not show that the two are equal either; its lower end says how much worse the model could still "
            "be."
        )
    return notes


def _references(scores: Sequence[Score], reference: str) -> str:
    """What differences of `scores` are from, in words: the report's `reference`, or by score where they differ."""
    names: dict[str, list[str]] = {}
    for score in scores:
        names.setdefault(score.reference or reference, []).append(score.name)
    if len(names) == 1:
        return next(iter(names))
    return ", and from ".join(f"{label} in {'; '.join(of_label)}" for label, of_label in names.items())


def _largest(score: Score) -> float:
    """The largest finite value of a score, 0 if there is none."""
    return max((abs(value.value) for value in score.values.values() if math.isfinite(value.value)), default=0.0)


def _words(count: int) -> str:
    """A number of parameters: 22 M, 1.13 B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if count >= size * 0.9995:  # three digits of less would be 1e+03 of the unit below
            return f"{count / size:.3g} {unit}"
    return f"{count}"


def _section(section: Section, folder: Path) -> dict[str, Any]:
    """A section as the template takes it."""
    shown = section.exclusions[:MAX_EXCLUSIONS]
    return {
        "title": section.title,
        "what": section.what,
        "basis": [_basis(count, name) for name, count in section.basis.items() if count],
        "tables": [shown_table(table) for table in section.tables],
        "figures": [_picture(figure, folder) for figure in section.figures],
        "notes": section.notes,
        "exclusions": shown,
        "num_exclusions": sum(exclusion.count for exclusion in section.exclusions),
        "hidden_exclusions": sum(exclusion.count for exclusion in section.exclusions[len(shown) :]),
        "settings": flat(section.settings),
        "source": flat(section.source),
    }


def _picture(figure: Figure, folder: Path) -> dict[str, Any]:
    """A figure as the template takes it: its bytes in the page, as wide as its inches, else as its pixels.

    Raises:
        OSError: the file is not there or no picture.
    """
    data = read_bytes(folder / figure.file)
    with Image.open(BytesIO(data), formats=["PNG"]) as image:
        width, height = image.size
        dots = float(image.info.get("dpi", (CSS_PX_PER_INCH, CSS_PX_PER_INCH))[0])
    scale = CSS_PX_PER_INCH / dots
    return {
        "source": f"data:image/png;base64,{base64.b64encode(data).decode()}",
        "width": round(width * scale),
        "height": round(height * scale),
        "caption": figure.caption,
        "alt": figure.alt,
    }


def flat(values: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of a dotted name and its value in words."""
    pairs: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            pairs += flat(value, f"{prefix}{name}.")
        elif isinstance(value, str):
            pairs.append((f"{prefix}{name}", value))
        else:
            pairs.append((f"{prefix}{name}", json.dumps(value, ensure_ascii=False, default=str)))
    return pairs


def _known(record: dict[str, Any]) -> dict[str, Any]:
    """A model's record without what is not known of it."""
    return {name: value for name, value in record.items() if value is not None}


def _without_nan(value: Any) -> Any:
    """`value` with numbers of any library as JSON's, and null for what is not finite."""
    if isinstance(value, dict):
        return {str(name): _without_nan(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    if value is None or isinstance(value, str | bool):
        return value
    return number_of(value) if isinstance(value, Real) else str(value)
