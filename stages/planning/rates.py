"""Compare the store whose rate prices a budget in time (`--rate-from`) with the stage one that is planned.

Left out: the machine, for a plan does not know where stage one will run; the words name that of the store.
"""

from collections.abc import Mapping

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
        + (", less those that --patch-qc left out" if "patch_qc" in first.settings else "")
        + (f", on {device}" if device else "")
    )


def rate_options(extract: ExtractConfig) -> dict[str, str | int]:
    """What of stage one's options changes its rate, by the names of the options."""
    name, views = named_spec(extract.teacher).name, extract.views or 1
    return {"--teacher": name, "--views": views, "--pixels": extract.pixels, "--patch-qc": _on_or_off(extract.patch_qc)}


def _on_or_off(is_on: bool) -> str:
    return "on" if is_on else "off"


def rate_differences(first: StoredTeacher, now: Mapping[str, str | int]) -> list[str]:
    """What changes the rate and is otherwise in a store than it will be in stage one, as "OPTION X, now Y".

    Args:
        first: the store's first teacher.
        now: what is known of stage one, by the names of options; `--tile-px` is that of the patch where there is none.
    """
    made = {
        "--patch-px": first.patch_px,
        "--tile-px": first.tile_px,
        "--teacher": first.name,
        "--views": first.views_at_hand.count,
        "--pixels": first.settings["pixels"],
        "--patch-qc": _on_or_off("patch_qc" in first.settings),
    }
    if all(each["--tile-px"] == each["--patch-px"] for each in (made, now)):  # they are the patches
        del made["--tile-px"]
    return [f"{name} {made[name]}, now {now[name]}" for name in made if name in now and made[name] != now[name]]
