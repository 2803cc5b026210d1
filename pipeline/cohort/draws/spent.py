"""What a plan's budget came to, in words. Pure; imports nothing that reads slides, for `g2l inspect` says it too."""

from typing import Any

from pipeline.base.units import format_bytes


def budget_lines(facts: dict[str, Any] | None) -> list[str]:
    """What a budget came to, from the plan's record, for the terminal; nothing if there was none."""
    if not facts:
        return []
    basis = ""
    if rate := facts.get("patches_a_second"):
        basis = f" at {rate:.4g} patches a second"
    elif "pixels" in facts:
        kind = {"jpegxl": "lossless pixels", "jpeg": "JPEG pixels", "none": "no pixels"}[facts["pixels"]]
        basis = f" with {format_bytes(facts['embedding_bytes'])} of embeddings a patch and {kind}"
    return [
        f"--budget {facts['budget']}{basis} came to {facts['patches']:,} of {facts['of_patches']:,} patches, at most "
        f"{facts['most_of_a_slide']:,} of a slide."
    ]
