"""The card of an exported student, README.md: what it is, what it was made from, how well it stands in for its teacher,
and under which terms. For people; programs read `student.json`.

The text is the template `data/card/student.md`. `g2l export` adds what it wrote (`card_files`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

import numpy as np

from pipeline.base.outside import printable
from pipeline.base.units import format_share
from pipeline.base.versions import versions
from pipeline.cohort.cases import CaseFacts, case_facts, cases_in_words
from pipeline.config.model_names import SCRATCH
from pipeline.config.recipes import Departure
from pipeline.encoders.build import OF_A_FILE, BuiltEncoder
from pipeline.encoders.hub import page_of
from pipeline.encoders.table import EncoderSpec
from pipeline.sampling import VAL, RowNumbers
from pipeline.store.teachers import ChosenTeachers
from pipeline.student.adapters import oldest_timm
from pipeline.student.student_json import FIRST_PROJECTOR, projector_files
from pipeline.training.augment import beyond_the_teacher
from pipeline.training.held_out import FIGURES, MEANINGS, figures_of
from pipeline.training.rows.choice import rows_of_all
from pipeline.training.run_folder import HeldOut

MARKUP = {
    "&": "&amp;",
    "<": "&lt;",
    ">": "&gt;",
    "|": "&#124;",
    "`": "&#96;",
    "*": "&#42;",
    "[": "&#91;",
    "]": "&#93;",
    "\\": "&#92;",
}
"""Characters that Markdown or HTML would take for their own, and how they are written to be seen."""
JSON_BACKTICK = "\\u0060"
"""A backtick as JSON may have it, so that no value ends the block of settings."""
USAGE = {
    "pooled": "embedding = model(images)",
    "cls": "embedding = model(images)",
    "cls+mean": (
        "tokens = model.forward_features(images)\n"
        "    embedding = torch.cat([tokens[:, 0], tokens[:, model.num_prefix_tokens :].mean(1)], dim=1)"
    ),
}
"""How a card says that the embedding is taken, by the rule."""


def card_template(name: str) -> str:
    """A text of the card with named fields, for `str.format`: a file of `data/card/`."""
    return resources.files("pipeline").joinpath("data", "card", name).read_text("utf-8")


def card_facts(
    teachers: ChosenTeachers,
    held_out: Mapping[str, HeldOut],
    student: BuiltEncoder,
    options: dict[str, Any],
    train_rows: RowNumbers,
    num_steps: int,
) -> dict[str, Any]:
    """What `model_card` says; `held_out` has the figures of `RunFolder.held_out_figures`, `options` those of the run
    that a card shows.
    """
    figures: list[tuple[Any, Any]] = [*held_out.values()] or [(None, None)] * len(teachers.names)
    first, plan = teachers.first, teachers.first.plan
    slide_of_row = plan.slide_of_row()
    train_slides, val_rows = np.unique(slide_of_row[train_rows]).tolist(), rows_of_all(teachers.stored, VAL)
    val_slides = np.unique(slide_of_row[val_rows]).tolist()
    cases = case_facts(plan.slides)
    return {
        "student": student.record(),
        "teachers": [
            {
                "teacher": each.record,
                "weight": weight,
                "content": each.content_hash(),
                "fidelity_before": before,
                "fidelity_after": after,
            }
            for each, weight, (before, after) in zip(teachers.stored, teachers.weights, figures, strict=True)
        ],
        "store": {
            "mpp": plan.mpp,
            "plan_hash": plan.hash,
            "content_hash": first.content_hash(),
            "train_rows": len(train_rows),
            "train_slides": len(train_slides),
            "train_cases": cases.count(len({plan.slides[i].case_id for i in train_slides})),
            "val_rows": len(val_rows),
            "val_slides": len(val_slides),
            "val_cases": cases.count(len({plan.slides[i].case_id for i in val_slides})),
            "cases": asdict(cases),
            "val_strip": plan.config.val_strip,
        },
        "config": options,
        "steps": num_steps,
        "versions": versions(),
        "views": (teachers.views_at_hand if options.get("views_per_epoch") == "fresh" else teachers.views).count,
        "views_strength": teachers.first.views_strength or "",
        "crop": crop_words(first.patch_px, first.tile_px),
    }


def model_card(summary: dict[str, Any]) -> str:
    """The card; `summary` is made by `card_facts`."""
    config, recipe = summary["config"], summary.get("recipe")
    summary = in_markdown({name: value for name, value in summary.items() if name not in ("config", "recipe")})
    student, store = summary["student"], summary["store"]
    teachers = [each["teacher"] for each in summary["teachers"]]
    names = [teacher["name"] for teacher in teachers]
    return card_template("student.md").format(
        student=student,
        store=store,
        names=" and ".join(names),
        student_params=student["num_params"] / 1e6,
        teacher_params=teachers[0]["num_params"] / 1e6,
        share=format_share(student["num_params"] / teachers[0]["num_params"], 1),
        whose=f"{names[0]}'s" if len(names) > 1 else "the teacher's",
        usage=USAGE[student["embedding"]],
        timm=timm_note(student["architecture"]),
        projector=FIRST_PROJECTOR,
        projectors=projectors_note(names),
        split=split_words(store) + seen_words(summary.get("seen", "")),
        teachers=teacher_lines(summary["teachers"]),
        start=start_note(summary.get("start", ())),
        steps=summary["steps"],
        stopped=f" {summary['stopped']}" if summary.get("stopped") else "",
        views=views_note(
            config["augment"],
            summary["views"],
            summary.get("views_strength", ""),
            summary.get("crop", ""),
            fresh=config.get("views_per_epoch") == "fresh",
        ),
        recipe=recipe_note(recipe),
        figures=all_figures(summary),
        settings=json.dumps(config, indent=2).replace("`", JSON_BACKTICK),
        versions=", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
        terms=terms_section(teachers, student),
    )


def in_markdown(value: Any) -> Any:
    """`value` with every text in it, at any depth, as one line that Markdown shows and does not take for markup: names
    and paths come from files of anybody.
    """
    if isinstance(value, str):
        line = " ".join(printable(value).split())
        return "".join(MARKUP.get(c, c) for c in line)
    if isinstance(value, dict):
        return {in_markdown(name): in_markdown(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(in_markdown, value))
    return value


def timm_note(architecture: str) -> str:
    """Which timm loads the folder, and which one the adapters need."""
    folder, by_name = oldest_timm(architecture, as_folder=True), oldest_timm(architecture)
    return (
        f"This takes timm {folder} or later, and before 1.0.26 a torch whose `torch.load` reads safetensors. The\n"
        f"adapters, where this folder has some, build it with timm {by_name} or later."
    )


def projectors_note(names: list[str]) -> str:
    """Where the projectors of several teachers are; nothing for one."""
    if len(names) == 1:
        return ""
    listing = "".join(f"- {name}: `{file}`\n" for name, file in projector_files(names).items())
    return (
        "\nThis student learnt from several teachers; `load_student(..., teacher=NAME)` gives the projector of the one "
        f"that it names, and of the first\nwithout a name. The projector into the space of\n\n{listing}"
    )


def teacher_source(teacher: dict[str, Any]) -> str:
    """Which weights a teacher has and where they came from."""
    if not teacher["weights_sha256"]:  # features that were imported without them
        return f"weights not known ({teacher['source']})"
    return f"weights {teacher['weights_sha256']} ({teacher['source']}, {teacher['weights']})"


def teacher_lines(teachers: Sequence[dict[str, Any]]) -> str:
    """Where each teacher's weights came from, with the weight of its loss; `teachers` are those of `card_facts`.

    The first one's line says neither name nor weight, as in cards of one teacher: the card says both elsewhere, and
    `earlier` reads the two forms in cards of earlier versions.
    """
    first, *further = teachers
    lines = [f"- Teacher {teacher_source(first['teacher'])}."]
    lines += [
        f"- Further teacher {each['teacher']['name']}: {teacher_source(each['teacher'])}, {each['weight']:.4g} "
        f"of the loss; content {each['content']}."
        for each in further
    ]
    return "\n".join(lines)


def start_note(projectors: Sequence[str]) -> str:
    """That a student was trained on from an earlier one: with its projectors into the spaces of these teachers."""
    return f" with its projector into the space of {' and '.join(projectors)}" if projectors else ""


def crop_words(patch_px: int, tile_px: int) -> str:
    """That views are crops, with the sides of patch and tile in pixels; "" where the tile is the patch."""
    return f"each a crop of {patch_px} of {tile_px} px" if tile_px != patch_px else ""


def views_note(augment: str, num_views: int, strength: str = "", crop: str = "", *, fresh: bool = False) -> str:
    """Lines of a card on the views of a patch, and on augmentation beyond them; `strength` if the store names one,
    `crop` if they are crops, `fresh` if each epoch had a view of its own.
    """
    facts = ", ".join(filter(None, (f"strength: {strength}" if strength else "", crop)))
    named = f" ({facts})" if facts else ""
    number = "A fresh view of each patch in each epoch" if fresh else f"{num_views} views of each patch"
    views = [f"{number}{named}, each compared with the teacher's embedding of that view."]
    beyond = beyond_the_teacher(augment, num_views)
    lines = [*(views if num_views > 1 else []), *([beyond[0].upper() + beyond[1:] + "."] if beyond else [])]
    return "".join(f"- {line}\n" for line in lines)


def recipe_note(recorded: tuple[str, Sequence[Departure]] | None) -> str:
    """Lines of a card on the recipe that the run named, and on what departs from it; nothing without a recipe."""
    if recorded is None:
        return ""
    name, departed = recorded
    listing = "".join(f"  - {each.command} {in_markdown(each.words())}\n" for each in departed)
    return f"- Recipe: {in_markdown(name)}{', but for' if departed else ''}\n{listing}"


def split_words(store: dict[str, Any]) -> str:
    """How the rows were split, in a sentence; `store` is that of `card_facts`."""
    if not store["val_rows"]:
        return "Nothing was held out."
    if store["val_strip"]:
        return (
            "The split is in space: a strip of each slide was held out, so that slides and cases are on both sides. It "
            "says nothing of other cases."
        )
    return (
        f"{cases_in_words(CaseFacts(**store['cases']))} Which they are stands in the plan of this hash; ids are left "
        "out here, since they may identify patients."
    )


def seen_words(seen: str) -> str:
    """What `SeenBeforeJson.words` says, as a sentence behind another; nothing for ""."""
    return f" {seen[0].upper()}{seen[1:]}." if seen else ""


def model_terms(role: str, record: dict[str, Any]) -> str:
    """Under which terms one model stands and what that means for the student, as an item of a list."""
    if record["weights"] == SCRATCH:
        return f"- {role}: random weights, no terms."
    licence = record["licence"] or "unknown"
    terms = [f"- {role}: {licence}."]
    lower = licence.lower()
    if "non-commercial" in lower or "-nc" in lower:
        terms.append("Non-commercial: the student must not be used commercially either.")
    if record.get("gated") or "gated" in lower:
        terms.append("Gated: access goes to those who accept its terms; read whether they let you pass the student on.")
    if "unknown" in lower or "see " in lower:
        terms.append("Read its terms before you use or share the student.")
    page = terms_page(record)
    return " ".join(terms) + (f" <{page}>" if page else "")


def terms_page(record: Mapping[str, Any]) -> str:
    """Address where a model's terms stand; "" if none is known, as of a file whose page would be of other weights."""
    return "" if record["licence"] == OF_A_FILE else page_of(EncoderSpec.from_record(dict(record)))


def terms_section(teachers: Sequence[dict[str, Any]], student: dict[str, Any]) -> str:
    """The terms of the student: those of its teachers, of the weights that it started from, and of its slides."""
    inherited = "\n".join(model_terms("Teacher", teacher) for teacher in teachers)
    return f"""## Terms

A student inherits its teacher's terms: it is made from the teacher's embeddings, and what the teacher's licence forbids
or asks of derived models holds for it. The terms of the weights that it started from hold as well, and those of the
slides. Where they differ, keep to the strictest.

{inherited}
{model_terms("Student's start", student)}

Not a medical device; for research."""


def all_figures(summary: dict[str, Any]) -> str:
    """`figures_table`, of several teachers under a heading each."""
    teachers, parts = summary["teachers"], []
    for each in teachers:
        table = figures_table(each["fidelity_before"], each["fidelity_after"], summary["store"]["val_rows"])
        parts.append(f"### {each['teacher']['name']}\n\n{table}" if len(teachers) > 1 else table)
    if (after := teachers[0]["fidelity_after"]) is not None:
        parts.append("\n".join(f"- {FIGURES[key]}: {MEANINGS[key]}." for key in figures_of(after)))
        parts += [summary["best"]] if summary.get("best") else []
    return "\n\n".join(parts)


def figures_table(before: dict[str, float] | None, after: dict[str, float] | None, num_rows: int = 0) -> str:
    """Held-out figures as a Markdown table; `num_rows` are held out, which may be too few to be scored."""
    if before is None or after is None:
        why = "One row was held out, too few to be scored" if num_rows == 1 else "No rows were held out"
        return f"{why}: nothing is known of how well this student stands in."
    keys = [key for key in figures_of(after) if key in before]
    lines = [f"On {after['rows']:,.0f} patches that were not trained on.", "", "| | before | after |", "|---|---|---|"]
    lines += [f"| {FIGURES[key]} | {before[key]:z.4f} | {after[key]:z.4f} |" for key in keys]
    return "\n".join(lines)
