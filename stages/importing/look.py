"""Find the feature file of each slide, and hold both against each other."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.base.console import Progress, say
from pipeline.base.errors import ConfigError
from pipeline.cohort.audit import AuditRow
from pipeline.cohort.manifest.rows import ManifestRow
from pipeline.cohort.plan import Plan
from pipeline.config.tools import ImportConfig
from pipeline.disk.file_names import file_named
from pipeline.encoders.names import are_of_one, other_encoders
from pipeline.encoders.table import named_spec
from pipeline.features.excluded import leave_out_cases
from pipeline.features.find import find_feature_tree
from pipeline.features.importing import Expected, ImportedSlide, look_at_slide, refuse_other_levels
from pipeline.features.match import Matched, fail_copies, fail_near_copies, match_slides
from pipeline.features.proof import Refused
from pipeline.slides.patch_sample import patches_to_measure

MOST_READERS = 4
"""Threads that read feature files, at most. Our choice: each holds the features of a slide, up to some 100 MB, and HDF5
serves one at a time.
"""


@dataclass(frozen=True)
class Looked:
    """Slides, checked against their feature files.

    Attributes:
        matched: which file is of which slide.
        slides: those that have a file, in the order of ids, failed or not.
        mpp: um/px of the patches.
        expected: what they were checked against.
    """

    matched: Matched
    slides: tuple[ImportedSlide, ...]
    mpp: float
    expected: Expected

    @property
    def audit(self) -> list[AuditRow]:
        """The audit of all slides: those with a file, those without, and the excluded ones."""
        return [*(slide.audit for slide in (*self.slides, *self.matched.failed)), *self.matched.excluded]

    @property
    def accepted(self) -> dict[str, ImportedSlide]:
        """The slides that are well, by id."""
        return {slide.audit.slide_id: slide for slide in self.slides if slide.slide is not None}

    def coords_note(self, folder: Path | None) -> str:
        """A note if the folder of coordinates that the user names has been of no use; "" otherwise."""
        slides = self.accepted.values()
        if folder is None or not slides or any(slide.coords_apart for slide in slides):
            return ""
        return f"note: --coords {folder} is not used: the feature files say themselves where their patches lie"

    def reason(self, slide_id: str) -> str:
        """Why a slide failed."""
        return next(slide.audit.reason for slide in self.slides if slide.audit.slide_id == slide_id)

    def reduced_as(self, plan: Plan) -> "Looked":
        """The same, its patches reduced as in a plan, which may be of an earlier version: that took Pillow, whoever had
        reduced them before.
        """
        known = {part.slide_id: part.geometry.resampling for part in plan.slides}
        slides = (slide.reduced_by(known.get(slide.audit.slide_id, slide.resampling)) for slide in self.slides)
        return replace(self, slides=tuple(slides))

    def without(self, refused: Sequence[Refused]) -> "Looked":
        """The same, with those slides failed whose features were refused and have not changed since."""
        reasons = {(r.slide_id, r.sha256): r.reason for r in refused}
        kept = []
        for slide in self.slides:
            reason = reasons.get((slide.audit.slide_id, slide.digest))
            kept.append(slide.failed(f"{slide.features}: {reason}") if reason else slide)
        return replace(self, slides=tuple(kept))


def find_features(folder: Path, config: ImportConfig) -> tuple[Matched, list[Path]]:
    """The slides with their feature files; and these files, or all that there are if none is of a slide.

    Raises:
        G2LError: no feature files or slides; a list of cases cannot be used.
    """
    tree = find_feature_tree(folder, "")
    matched = leave_out_cases(match_slides(tree, config.manifest, config.slides_root), config.exclude_cases)
    for note in matched.notes:
        say(f"note: {note}")
    return matched, [path for _, path in matched.pairs] or list(tree.files.values())


def expected_features(config: ImportConfig, patch_px: int, width: int) -> Expected:
    """What the features of every slide must fit."""
    return Expected(
        teacher=config.teacher,
        patch_px=patch_px,
        width=width,
        mpp=config.mpp,
        allow_upsampling=config.allow_upsampling,
        coords=config.coords,
        sampling=config.sampling,
    )


def look_at_features(matched: Matched, expected: Expected, workers: int) -> Looked:
    """Check every feature file against its slide.

    Raises:
        ConfigError: the files name different encoders, or another than the teacher.
    """
    root, measured = matched.root, patches_to_measure(len(matched.pairs))

    def look(pair: tuple[ManifestRow, Path]) -> ImportedSlide:
        row, features = pair
        return look_at_slide(row, file_named(root / row.path), features, expected, measured)

    slides, failed = [], 0
    with (
        ThreadPoolExecutor(min(workers, MOST_READERS)) as pool,
        Progress("looking at features", len(matched.pairs), "slides") as progress,
    ):
        for slide in pool.map(look, matched.pairs):
            slides.append(slide)
            failed += slide.slide is None
            progress.note(failed=failed)
            progress.step()
    slides, mpp = refuse_other_levels(fail_copies(slides, root), expected.mpp)
    slides = fail_near_copies(slides, root)
    say_encoder(slides, expected.teacher)
    return Looked(matched, tuple(slides), mpp, expected)


def say_encoder(slides: Sequence[ImportedSlide], teacher: str) -> None:
    """Say if the files name an encoder of which it is not known whether it is the teacher.

    Raises:
        ConfigError: they name different encoders, or another than the teacher.
    """
    encoders = sorted({s.encoder for s in slides if s.slide and s.encoder})
    if not are_of_one(encoders):
        raise ConfigError(f"the files name different encoders: {', '.join(encoders)}. Import one folder of features")
    if other := other_encoders(encoders, named_spec(teacher).record()):
        say(
            f"note: the files name the encoder {other[0]}, --teacher says {teacher}; it is not known whether "
            "they are the same"
        )
