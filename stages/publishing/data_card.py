"""The data card of a store that is published: what it holds, what it says of patients, and under which terms.

All of it is taken from the store, but for the terms of the slides, which the user states.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import DatasetCardData

from pipeline.base.console import counted
from pipeline.cohort.cases import case_facts
from pipeline.sampling import VAL
from pipeline.store.format import Status
from pipeline.store.store import Store, StoredTeacher
from pipeline.student.card import JSON_BACKTICK, card_template, in_markdown, teacher_source, terms_page
from pipeline.student.hub_header import (
    ARXIV_PAPER,
    MAY_PASS_ON,
    PAPER_SECTION,
    TASK,
    TERMS,
    UNNAMED_REPOSITORY,
    hub_licence,
)

SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
    (100_000_000, "10M<n<100M"),
)
"""The hub's words for numbers of rows: below which number they hold."""
LARGEST = "100M<n<1B"


def data_card(store: Store, slides_terms: str, repository: str = UNNAMED_REPOSITORY) -> str:
    """The card, header and text.

    Args:
        slides_terms: licence or terms of the slides, as the user states them.
        repository: where it is sent to.

    Raises:
        StoreError: the store is damaged.
    """
    plan, first = store.plan, store.first
    named = in_markdown([teacher.record["name"] for teacher in store.teachers.values()])
    stored = list(store.teachers.values())
    text = card_template("store.md").format(
        title=f"Patches of {counted(len(plan.slides), 'slide')}, embedded by {' and '.join(named)}",
        names=" and ".join(named),
        of_pixels="and pixels " if store.has_pixels else "",
        repository=repository,
        **_ways_to_use(store),
        tile=f", each within a tile of {store.tile_px} px" if store.tile_px != store.patch_px else "",
        facts={
            "rows": store.num_rows,
            "px": store.patch_px,
            "mpp": plan.mpp,
            "plan_hash": plan.hash,
            "content_hash": first.content_hash(),
        },
        table="\n".join(f"| {name} | {value} |" for name, value in _facts(store).items()),
        teachers="\n".join(_teacher_line(each) for each in stored),
        patients=patients_note(store),
        settings=json.dumps(plan.config.record(), indent=2).replace("`", JSON_BACKTICK),
        versions=", ".join(
            f"{name} {version}" for name, version in in_markdown(first.attributes.get("versions", {})).items()
        ),
        terms=terms_of_store(stored, slides_terms),
    )
    header = DatasetCardData(
        pretty_name=f"{' and '.join(each.record['name'] for each in stored)} embeddings of patches, by G2L",
        task_categories=[TASK],
        tags=["pathology", "embeddings", "knowledge-distillation", f"arxiv:{ARXIV_PAPER}"],
        size_categories=[next((words for most, words in SIZES if store.num_rows < most), LARGEST)],
        **hub_licence([{"licence": slides_terms, "weights": ""}, *(each.record for each in stored)]),
    )
    return f"---\n{header.to_yaml()}\n---\n\n{text.rstrip()}\n{PAPER_SECTION}"


def _facts(store: Store) -> dict[str, str]:
    """Rows of the card's table."""
    plan, first = store.plan, store.first
    counts = first.ledger.status_counts()
    held_out = len(first.ok_rows(VAL))
    pixels = {"jpegxl": "JPEG XL, without loss", "jpeg": "JPEG", "none": "not in the store"}[store.image_format]
    cases = case_facts(plan.slides)
    return {
        "Patches": ", ".join(f"{counts[code.name]:,} {code.words}" for code in Status if counts.get(code.name)),
        "Held out": f"{held_out:,} ok",
        "Slides": f"{len(plan.slides):,}",
        "Cases": cases.count(len({slide.case_id for slide in plan.slides})),
        "Pixels": pixels,
        "Shards": f"{first.num_shards:,} of {first.rows_per_shard:,} rows",
    }


def _ways_to_use(store: Store) -> dict[str, str]:
    """What the card's lines say more: of a store without pixels, and of one of several teachers."""
    words = {
        "root": "" if store.has_pixels else " --slides-root SLIDES",
        "by_teacher": "",
        "of_teacher": "",
        "further": "",
    }
    first, *further = (teacher.name for teacher in store.teachers.values())
    if further:
        folders = ", ".join(f"`teachers/{name}`" for name in in_markdown(further))
        words["by_teacher"] = "".join(f" --teacher {shlex.quote(name)}" for name in (first, *further))
        words["of_teacher"] = f", teacher={first!r}"
        words["further"] = f"\nThose are the first teacher's; further ones have their own in {folders}."
    return words


def _teacher_line(teacher: StoredTeacher) -> str:
    """What one teacher's embeddings are."""
    record, settings = in_markdown(teacher.record), teacher.settings
    views = f", {teacher.views_at_hand.count} views" if teacher.views_at_hand.count > 1 else ""
    return (
        f"- {record['name']}: {record['embedding']}, {record['width']} dimensions, {settings['dtype']}{views}; "
        f"{teacher_source(record)}; mean {record['mean']}, std {record['std']}."
    )


def patients_note(store: Store) -> str:
    """What a reader of the store learns of patients beside the embeddings."""
    slides = store.plan.slides
    labels = sorted({name for slide in slides for name in slide.labels})
    told = ["slide ids", "names of the slides' files"]
    told += ["case ids"] * any(slide.has_case for slide in slides)
    told += ["centres"] * any(slide.center for slide in slides)
    told += [f"{', '.join(in_markdown(labels))} of each slide"] if labels else []
    pixels = "The pixels of the patches. " if store.has_pixels else ""
    return f"{pixels}For each slide, as the manifest had them: {', '.join(told)}. Places of patches in the slides."


def terms_of_store(teachers: Sequence[StoredTeacher], slides_terms: str) -> str:
    """The section on terms."""
    lines = [f"- Slides: {in_markdown(slides_terms)}.", *(_teacher_terms(each.record) for each in teachers)]
    return f"""{TERMS}
Embeddings are made by the teacher from the slides, and pixels are parts of the slides: the terms of all of them hold.
Where they differ, keep to the strictest.

{chr(10).join(lines)}

Not a medical device; for research."""


def _teacher_terms(record: Mapping[str, Any]) -> str:
    page = terms_page(record)
    gated = " Gated: access goes to those who accept its terms." if record.get("gated") else ""
    return (
        f"- Teacher {in_markdown(record['name'])}: {record['licence'] or 'unknown'}.{gated}{f' <{page}>' * bool(page)}"
    )


def store_terms_in_the_way(store: Store, slides_terms: str) -> list[str]:
    """Terms that forbid to share the store, or do not say that it is allowed, a line each; empty if all allow."""
    lines = [f"Slides: {slides_terms}"] if slides_terms.lower() not in MAY_PASS_ON else []
    for teacher in store.teachers.values():
        record = teacher.record
        if record.get("gated") or (record["licence"] or "").lower() not in MAY_PASS_ON:
            lines.append(_teacher_terms(record)[2:])
    return lines
