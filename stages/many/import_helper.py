"""`g2l import-features` in the processes that help the first one (`torchrun`): they take shards until all are done."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from pipeline.base.console import say
from pipeline.base.cores import own_cores
from pipeline.base.launched.group import LaunchedGroup
from pipeline.cohort.plan import PlannedSlides
from pipeline.config.tools import ImportConfig
from pipeline.disk.at_hand import noted
from pipeline.features.importing import FeatureRows, ImportedSlide
from pipeline.store.changed_slides import noting_changed
from pipeline.store.patches import PlannedPatches
from stages.import_features import copy_shards
from stages.many.extract_helper import open_when_seen
from stages.many.shared_shards import do_claimed


def help_import(group: LaunchedGroup, out: Path, config: ImportConfig) -> None:
    """Wait for the leader's call, and copy shards into the store `out` until all are done. The leader has looked at the
    features, and says where they are.

    Raises:
        G2LError: the leader has failed, or a file has changed meanwhile.
    """
    with group.helping() as calls:
        call = next(calls, None)
        if call is None:
            return
        store = open_when_seen(out)
        teacher, plan, files = store.first, store.plan, call["slides"]
        found = tuple(replace(slide, path=files[slide.slide_id][0]) for slide in plan.slides)
        slides = PlannedSlides(found, Path(call["slides_root"]))
        imported = {
            row.slide_id: ImportedSlide(row, features=Path(files[row.slide_id][1]), digest=files[row.slide_id][2])
            for row in plan.audit
            if row.slide_id in files
        }
        image_format = store.image_format if store.has_pixels else None
        accepts = noting_changed(out) if config.retry_failures else None
        do_shards = partial(
            copy_shards,
            teacher,
            PlannedPatches(slides, image_format, tell=say, accepts_changed=accepts, stage=config.stage_folder),
            features=FeatureRows(plan, imported, config.coords, fills_store=True),
            workers=config.workers or own_cores(),
        )
        with noted(out, (slides.slide_path(slide) for slide in slides.slides), call["crashing"]):
            do_claimed(group, teacher, call, do_shards)
