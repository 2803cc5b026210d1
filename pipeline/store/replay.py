"""Whether the views of a store can be replayed here exactly: those that its teacher saw, or none.

A store keeps no views, but their strength and a hash of some views of a fixed tile (`cohort.views.views_probe`). Views
are computed in whole numbers and rest on no codec and no resampling of a library; another hash means another program,
or a machine on which that does not hold. Stores without a strength have the views of earlier versions, which never
changed.
"""

from typing import Any

from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.versions import other_versions
from pipeline.cohort.view_strengths import EARLIER
from pipeline.cohort.views import views_probe
from pipeline.store.store import StoredTeacher


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
    if is_plain or "views_strength" not in settings:
        return
    strength = settings["views_strength"]
    if settings.get("views_probe") == views_probe(strength):
        return
    others = ", ".join(other_versions(teacher.attributes.get("versions", {}))) or "none of those that are recorded"
    raise StoreError(
        f"{teacher.place}: its views ({strength}) cannot be replayed exactly here: a fixed tile gives other views "
        f"than where it was made. Versions that differ (made with -> now): {others}. Use those it was made with, or "
        "make the embeddings again"
    )
