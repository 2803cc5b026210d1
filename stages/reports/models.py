"""What `g2l models` says besides the table: which revision of a page is taken, where facts were read, and which
encoders are left out.
"""

from pipeline.base.console import table
from pipeline.config.model_names import HUB_PREFIX
from pipeline.encoders.hub import revision_of
from pipeline.encoders.left_out import NOT_BUILT, left_out_name
from pipeline.encoders.page_facts import facts_of
from pipeline.encoders.table import EncoderSpec


def page_rows(spec: EncoderSpec) -> list[tuple[str, object]]:
    """The revision of an encoder's page that is taken, its file, where it was all read; none of other sources.

    Of a page that the table leaves out: the name that it has there, what is known of it, and what is not.
    """
    if not spec.page:
        return []
    facts, revision = facts_of(spec.page), revision_of(spec)
    if revision is None:
        words = f"not pinned: the page's main one; name one as {HUB_PREFIX}{spec.page}@REVISION"
    else:
        words = (
            revision
            if revision != facts.revision
            else f"{revision} (pinned; {HUB_PREFIX}{spec.page}@main for the latest)"
        )
    rows: list[tuple[str, object]] = [("revision", words)]
    if facts.sha256 and revision == facts.revision:
        rows.append(("sha256 of its file", facts.sha256))
    if facts.read_in:
        rows.append(("read in", "; ".join(facts.read_in)))
    if key := left_out_name(spec.page):
        rows += [("listed as", key), ("known", NOT_BUILT[key].about), ("not in the table", NOT_BUILT[key].reason)]
    return rows


def left_out_table() -> str:
    """The encoders that are known and not in the table, with the reason."""
    return table([(name, each.reason) for name, each in NOT_BUILT.items()], ("name", "reason"))


def describe_left_out(name: str) -> str:
    """One of the encoders that are left out: what is known of it, why, and what can be done instead."""
    key = left_out_name(name)
    each = NOT_BUILT[key]
    rows = [("name", key), ("page", each.page or "none found"), ("known", each.about or "nothing")]
    return table([*rows, ("not in the table", each.reason), ("instead", each.instead)])
