"""Whether the views of a store can be replayed here exactly: those that its teacher saw, or none.

A store keeps no views, but their strength and a hash of some views of a fixed tile (`cohort.views.views.views_probe`).
Views are computed in whole numbers and rest on no codec and no resampling of a library; another hash means that the
code of the views has changed, or a machine on which they come out otherwise. So the hash stands for the version of that
code, and nobody can forget to raise it. Stores without a strength have the views of earlier versions, which never
changed: their hash is `EARLIER_PROBE`.
"""

from typing import Any, Final

from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.versions import other_versions
from pipeline.cohort.views.strengths import EARLIER
from pipeline.cohort.views.views import views_probe
from pipeline.store.store import StoredTeacher

EARLIER_PROBE: Final = "0cb51cd915a147f86392b5228e376d5c1aac124693e48b89cc55d7337f0ecc54"
"""`views_probe` of the views of stores that record none: since version 0.1.0, and for good."""
MADE_BY: Final = ("g2l", "python", "numpy", "scipy")
"""What computes views, to be named where they cannot be replayed."""


def strength_settings(strength: str, *, has_tiles: bool) -> dict[str, Any]:
    """What the settings of a store say of the strength of its views; nothing where the views are those of earlier
    versions, which had no tiles to crop.

    Raises:
        ConfigError: all views would be the patch itself.
    """
    if strength == "none" and not has_tiles:
        raise ConfigError(
            "--views-strength none: without tiles nothing can be cropped, so that all views would be the patch itself. "
            "Plan with --tile-px, or choose another strength"
        )
    return (
        {}
        if strength == EARLIER and not has_tiles
        else {"views_strength": strength, "views_probe": views_probe(strength)}
    )


def require_replay(teacher: StoredTeacher) -> None:
    """See that the views of a teacher can be replayed.

    Raises:
        StoreError: they cannot; says under which versions they were made.
    """
    settings = teacher.settings
    is_plain = teacher.views.count == 1 and not teacher.own_view
    if is_plain:
        return
    strength = settings.get("views_strength", EARLIER)
    expected = settings.get("views_probe") if "views_strength" in settings else EARLIER_PROBE
    if expected == views_probe(strength):
        return
    versions = teacher.attributes.get("versions", {})
    others = ", ".join(other_versions(versions, MADE_BY)) or (
        "none that are recorded: the code of the views was changed, or this machine computes otherwise"
    )
    raise StoreError(
        f"{teacher.place}: its views ({strength}) cannot be replayed exactly here: a fixed tile gives other views "
        f"than where it was made, by g2l {versions.get('g2l', '(not recorded)')}. Versions that differ (made with -> "
        f"now): {others}. Use those it was made with, or make the embeddings again"
    )
