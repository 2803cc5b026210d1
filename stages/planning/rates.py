"""Compare the store whose rate prices a budget in time (`--rate-from`) with the stage one that is planned. Pure.

Left out: the machine, for a plan does not know where stage one will run; the words name that of the store.
"""

from collections.abc import Iterator

from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.table import named_spec
from pipeline.store.store import StoredTeacher


def rate_words(first: StoredTeacher) -> str:
    """What the rate of a store is that of: its first teacher, with the views that there are, and where it ran."""
    views = first.views_at_hand.count
    device = (first.attributes.get("preflight") or {}).get("device")
    return (
        f"{first.name} with patches of {first.patch_px} px"
        + (f" in {views} views" if views > 1 else "")
        + (f", on {device}" if device else "")
    )


def rate_differences(first: StoredTeacher, config: PlanConfig, extract: ExtractConfig | None) -> list[str]:
    """What changes the rate and is otherwise in a store than it will be in stage one, as "WHAT X, now Y".

    Args:
        first: the store's first teacher.
        config: the options of the plan.
        extract: those of stage one; `None` if they are not known, as in `g2l plan`.
    """
    return [f"{what} {made}, now {now}" for what, made, now in _compared(first, config, extract) if made != now]


def _compared(
    first: StoredTeacher, config: PlanConfig, extract: ExtractConfig | None
) -> Iterator[tuple[str, str | int, str | int]]:
    """What is compared: its name, what it is in the store, and what it will be."""
    yield "--patch-px", first.patch_px, config.patch_px
    if first.tile_px != first.patch_px or config.has_tiles:
        yield "--tile-px", first.tile_px, config.read_px
    if extract is not None:
        yield "--teacher", first.name, named_spec(extract.teacher).name
        yield "--views", first.views_at_hand.count, extract.views or 1
        yield "--pixels", first.settings["pixels"], extract.pixels
