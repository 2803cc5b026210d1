"""What a plan was made with beyond the defaults, for `g2l inspect`: a line for each choice, and none for a default;
what it has of each cluster, and how much of the slides rules dropped.
"""

from collections import Counter
from collections.abc import Collection, Sequence

from pipeline.base.console import counted, table
from pipeline.base.errors import PlanError
from pipeline.base.outside import reading
from pipeline.base.units import format_area
from pipeline.cohort.audit import EXCLUDED, AuditRow
from pipeline.cohort.draws.cluster_counts import counts_of_cohort
from pipeline.cohort.plan import Plan
from pipeline.config.groups import Decode, Sampling
from pipeline.config.plan import PlanConfig
from pipeline.config.tissue_rules import EARLIER_RULES, MAX_ARTEFACT, RULE_WORDS, RuleName

Line = tuple[str, object]
LEAST_MM2 = 0.05
"""Smallest area that the line of areas names, mm2: what is not rounded to 0.0."""


def plan_choices(plan: Plan, *, is_imported: bool = False) -> list[Line]:
    """Name and words of each choice that a plan was made with; those of its tissue not `is_imported`, for then another
    tool has found it.
    """
    tissue = [] if is_imported else [*_rules(plan.config.rules, plan.config.max_artefact), *_tissue_files(plan)]
    return [*tissue, *_classes(plan.config), *_sample(plan.config), *_decode(plan.config.decode), *_excluded(plan)]


def _rules(rules: Collection[RuleName], max_artefact: float) -> list[Line]:
    """The rules of the tissue finder that are off or on, and how much of a patch artefacts may cover, where that is not
    the default.
    """
    if tuple(rules) == EARLIER_RULES:
        return [("tissue rules", f"{' and '.join(EARLIER_RULES)} alone, as in earlier versions")]
    off = [name for name, words in RULE_WORDS.items() if words.is_on and name not in rules]
    on = [name for name in rules if not RULE_WORDS[name].is_on]
    lines: list[Line] = [
        (f"tissue rules {word}", ", ".join(names)) for word, names in (("off", off), ("on", on)) if names
    ]
    if max_artefact != MAX_ARTEFACT:
        lines.append(("artefacts", f"on at most {100 * max_artefact:.4g} % of a patch's area"))
    return lines


def _tissue_files(plan: Plan) -> list[Line]:
    """How many slides have their tissue from a file."""
    number = sum(bool(row.tissue_sha256) for row in plan.audit)
    return [("tissue from files", f"of {counted(number, 'slide')}")] if number else []


def _classes(config: PlanConfig) -> list[Line]:
    """The classes of annotations that decide."""
    lines: list[Line] = []
    if config.annotation_origin != "auto":
        corner = {"scan": "the scanned area's", "slide": "the slide's"}[config.annotation_origin]
        lines.append(("annotations", f"coordinates count from {corner} corner"))
    if config.include:
        lines.append(
            ("include", f"{_listed(config.include)}: at least {100 * config.min_class:.4g} % of a patch's area")
        )
    if config.exclude:
        lines.append(
            ("exclude", f"{_listed(config.exclude)}: at most {100 * config.max_excluded:.4g} % of a patch's area")
        )
    return lines


def _sample(config: PlanConfig) -> list[Line]:
    """How patches are drawn, and shared between centres."""
    words: list[str] = [config.sample]
    if config.class_quota:
        words.append(f"quotas {_listed(config.class_quota)}")
    if config.sample == "cluster":
        words.append(f"{config.candidates or Sampling.candidates} candidates for each patch")
        words.append(f"up to {config.clusters or Sampling.clusters} clusters")
    lines: list[Line] = [("sample", "; ".join(words))] if config.sample != "uniform" else []
    return [*lines, *([("balance", f"between {config.balance}s")] if config.balance else [])]


def _decode(decode: Decode) -> list[Line]:
    """At which size JPEG tiles are decoded, if not in full."""
    return [("decode", decode)] if decode != "full" else []


def _excluded(plan: Plan) -> list[Line]:
    """How many slides `--exclude-cases` has left out."""
    cases = [row.case_id for row in plan.audit if row.status == EXCLUDED]
    words = f"{counted(len(cases), 'slide')} of {counted(len(set(cases)), 'case')}"
    return [("excluded cases", f"{words}, left out by --exclude-cases")] if cases else []


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


def cluster_table(plan: Plan) -> str:
    """The clusters that a plan was sampled by: candidates, patches taken and slides; "" without any.

    Raises:
        PlanError: the audit is damaged.
    """
    with reading("the audit", "the plan is damaged", PlanError):
        counts = counts_of_cohort(row.cluster_patches for row in plan.audit)
    return table(counts, ("cluster", "candidates", "taken", "slides"), right=(0, 1, 2, 3)) if counts else ""


def area_lines(audit: Sequence[AuditRow]) -> list[str]:
    """Lines of the area that all slides have, of what rules dropped, and of patches that artefacts cover; none if no
    rule ran.
    """
    dropped: dict[str, float] = {}
    for row in audit:
        for name, area in row.dropped_areas().items():
            dropped[name] = dropped.get(name, 0.0) + area
    if not dropped:
        return []
    kept = sum(row.tissue_mm2 or 0.0 for row in audit)
    words = ", ".join(f"{name} {area:,.1f}" for name, area in dropped.items() if area >= LEAST_MM2)
    nothing = f"less than {LEAST_MM2} each" if any(dropped.values()) else "nothing"
    lines = [f"tissue: {format_area(kept)} mm2 kept; dropped by rules, mm2: {words or nothing}"]
    return [*lines, *_covered(audit)]


def _covered(audit: Sequence[AuditRow]) -> list[str]:
    """A line of the patches that artefacts cover; none if there are none."""
    num, most = sum(row.patches_covered for row in audit), Counter[str]()
    for row in audit:
        most.update(row.covering_rules())
    words = counted(num, "patch is", "patches are")
    by = f" (most of each: {', '.join(f'{name} {count:,}' for name, count in most.items())})" if most else ""
    line = f"{words} on tissue but left out: artefacts cover more of each than --max-artefact allows{by}"
    return [line] if num else []
