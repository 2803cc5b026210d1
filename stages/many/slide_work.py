"""The slides that `g2l embed` works through, alone or as one of several processes: prepare one, embed it, say what
came of it.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from pipeline.base.console import Progress, counted, say
from pipeline.base.errors import EmbedError, SlideError
from pipeline.cohort.manifest.rows import Manifest, ManifestRow, row_hash
from pipeline.disk.files import sha256_json
from pipeline.disk.objects.bucket import ObjectFacts
from pipeline.disk.objects.places import ObjectPath
from pipeline.disk.objects.present import look_at_objects
from pipeline.features.embedding import (
    WHOLE_SLIDE,
    Embedder,
    Failure,
    PreparedSlide,
    content_changes,
    embed_slide,
    file_change,
    prepare_slide,
    slide_content,
)
from pipeline.features.layouts import Mark, Place
from pipeline.slides.identity import MIRAX, check_sha256
from pipeline.slides.reader import Slide, slide_failures
from pipeline.slides.staging.ahead import Staging
from pipeline.slides.staging.copies import ExpectedSlide
from stages.reports.embed import Tally

PREPARED_AHEAD = 2
"""Slides whose tissue is found while another one is embedded. Our choice: finding tissue is mostly the shorter work."""
SHARED_AHEAD = 1
"""The same for one of several processes: what it has taken no other one does, and at the end they wait for each other.
"""


@dataclass(frozen=True)
class SlideDone:
    """What came of one slide.

    Attributes:
        slide_id: which.
        rows, failed: its patches with embeddings, and those left out.
        new: patches that this run has embedded.
        is_before: whether an earlier run had finished it.
        is_kept: whether another try at its failed patches has gained nothing, so that its files are as they were.
        reason: why it failed; "" if it did not.
        warnings: what is odd about it, in words.
        failures: the patches that were left out, or the slide.
    """

    slide_id: str
    rows: int = 0
    failed: int = 0
    new: int = 0
    is_before: bool = False
    is_kept: bool = False
    reason: str = ""
    warnings: str = ""
    failures: list[Failure] = field(default_factory=list)

    @property
    def is_new(self) -> bool:
        """Whether this run has written its files, or failed to: only then are its failures other than before."""
        return not (self.is_before or self.is_kept)

    def record(self) -> dict[str, Any]:
        """All of it as JSON types."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Self:
        """The inverse of `record`."""
        return cls(**{**record, "failures": [Failure(**failure) for failure in record["failures"]]})


def count_slide(tally: Tally, done: SlideDone) -> None:
    """Count what came of a slide."""
    if done.reason:
        tally.reasons[done.slide_id] = done.reason
        return
    tally.add(done.rows, done.failed)
    tally.num_before += done.is_before
    tally.new_patches += done.new
    if done.warnings:
        tally.warnings[done.slide_id] = done.warnings


class ExpectedPatches:
    """The number of patches of all slides, estimated by those that are prepared.

    Attributes:
        num_left: slides that are not prepared yet.
    """

    def __init__(self, progress: Progress, num_left: int) -> None:
        self.num_left = num_left
        self._progress, self._num_prepared, self._num_planned = progress, 0, 0

    def expect(self, num_patches: int) -> None:
        """A slide has so many; of the others as many each are expected."""
        self._num_prepared, self._num_planned = self._num_prepared + 1, self._num_planned + num_patches
        others = round(self.num_left * self._num_planned / self._num_prepared)
        self._progress.expect(self._num_planned + others, is_estimate=self.num_left > 0)


def slides_hash(manifest: Manifest) -> str:
    """Hash of the ids and files of the slides: the same for all processes that share them."""
    return sha256_json([[row.slide_id, row_hash(row)] for row in manifest.rows])


@dataclass(frozen=True, eq=False)
class SlideWork:
    """What is to be done, and how a slide is embedded.

    Attributes:
        manifest: the slides.
        place: where their files go.
        embedder: the model.
        marks: of the slides whose files were whole at the start, for all processes the leader's.
        made_by: what the embeddings depend on, for the marks.
        check_files, retry_failures: as for `prepare`.
        staging: where copies of the slides are.
        written: ids of finished slides in a bucket that may have been written since (`written_since`).
    """

    manifest: Manifest
    place: Place
    embedder: Embedder
    marks: dict[str, Mark]
    made_by: dict[str, Any]
    check_files: bool
    retry_failures: bool
    staging: Staging = field(default_factory=lambda: Staging(None, tell=say))
    written: frozenset[str] = frozenset()

    @property
    def rows_left(self) -> list[ManifestRow]:
        """The slides that are to be read: those without whole files, those whose failures are tried again, and those
        that may have been written since.
        """
        marks = {row.slide_id: self.marks.get(row.slide_id) for row in self.manifest.rows}
        again = {slide for slide, mark in marks.items() if mark is None or (self.retry_failures and mark.failed)}
        again |= self.written
        return [row for row in self.manifest.rows if row.slide_id in again]

    def slide_to_stage(self, row: ManifestRow) -> ExpectedSlide:
        """A slide that is to be read once; with `check_files` its copy must have the manifest's sha256."""
        return ExpectedSlide(self.manifest.slide_path(row), sha256=row.sha256 if self.check_files else None)

    @property
    def num_left(self) -> int:
        """Slides without whole files."""
        return sum(row.slide_id not in self.marks for row in self.manifest.rows)

    def prepare(self, row: ManifestRow) -> PreparedSlide | None:
        """As `prepare`."""
        mark = self.marks.get(row.slide_id)
        copy = self.staging.copy_of(path := self.manifest.slide_path(row))
        if mark is not None and copy is None and isinstance(path, ObjectPath):
            return None  # not written since, so it is not copied
        return prepare(
            row,
            self.manifest,
            self.place,
            mark,
            check_files=self.check_files,
            retry_failures=self.retry_failures,
            copy=copy,
        )

    def is_on_disk(self, index: int) -> bool:
        """Whether a slide has been finished since the start."""
        slide_id = self.manifest.rows[index].slide_id
        return slide_id not in self.marks and self.place.read_mark(slide_id) is not None

    def done_silently(self, row: ManifestRow) -> SlideDone:
        """What is known of a slide whose process was killed after its last file; by its mark."""
        mark = self.place.read_mark(row.slide_id)
        if mark is None:
            return SlideDone(row.slide_id, reason="its process was killed before it could say what came of it")
        words = f"{counted(mark.failed, 'patch was', 'patches were')} left out"
        failures = [Failure(row.slide_id, None, None, "PATCHES", words)] if mark.failed else []
        return SlideDone(row.slide_id, mark.rows, mark.failed, mark.rows, failures=failures)

    def do(
        self,
        row: ManifestRow,
        prepared: "Future[PreparedSlide | None]",
        expect: Callable[[int], None],
        step: Callable[[int], None],
        note_failures: Callable[[str, list[Failure]], None] = lambda *_: None,
    ) -> SlideDone:
        """Embed a slide and write its files, if it is not finished; a slide that fails says why.

        Args:
            expect: is told the slide's number of patches.
            step: is told of patches that are done.
            note_failures: is told the slide's failures, before its files are written.

        Raises:
            G2LError: a file cannot be written, or the device has too little memory.
        """
        before = self.marks.get(row.slide_id)
        try:
            slide = prepared.result()
            if slide is None:
                assert before is not None
                return SlideDone(row.slide_id, before.rows, before.failed, is_before=True)
            expect(len(slide.plan.coords_l0_px))
            embedded, failures = embed_slide(slide, self.embedder, self.made_by, step, say)
        except SlideError as error:
            failed = [Failure(row.slide_id, None, None, WHOLE_SLIDE, str(error))]
            note_failures(row.slide_id, failed)
            return SlideDone(row.slide_id, reason=str(error), failures=failed)
        if before is not None and len(failures) >= before.failed:  # --retry-failures gained nothing
            return SlideDone(row.slide_id, before.rows, before.failed, is_kept=True)
        note_failures(row.slide_id, failures)
        mark = self.place.write(embedded)
        new, words = len(embedded.features), "; ".join(slide.warnings)
        return SlideDone(row.slide_id, mark.rows, mark.failed, new, warnings=words, failures=failures)


def written_since(manifest: Manifest, place: Place, marks: Mapping[str, Mark]) -> frozenset[str]:
    """The ids of finished slides in a bucket that may not be what their files are of: gone, of another size, or written
    after these. They are compared once they are copied; the others are taken to be the same.

    Raises:
        ObjectError: a bucket cannot be asked.
    """
    rows = {row.slide_id: row for row in manifest.rows if row.slide_id in marks}
    paths = {name: path for name, row in rows.items() if isinstance(path := manifest.slide_path(row), ObjectPath)}
    looks, written = look_at_objects(paths.values()), set()
    for name, path in paths.items():
        look, made = looks[path], place.marked_file(name).stat().st_mtime
        num_bytes = None if path.suffix.lower() == MIRAX else marks[name].slide["bytes"]  # whose bytes are of all files
        is_same = isinstance(look, ObjectFacts) and look.modified < made and num_bytes in (None, look.num_bytes)
        if not is_same:
            written.add(name)
    return frozenset(written)


def prepare_ahead(
    rows: Iterable[ManifestRow], prepare_row: Callable[[ManifestRow], PreparedSlide | None], num_ahead: int
) -> Generator[tuple[ManifestRow, "Future[PreparedSlide | None]"], None, None]:
    """Every row with the preparation of its slide, which runs ahead in threads, of `num_ahead` slides."""
    with ThreadPoolExecutor(num_ahead, thread_name_prefix="g2l-prepare") as pool:
        waiting: deque[tuple[ManifestRow, Future[PreparedSlide | None]]] = deque()
        try:
            for row in rows:
                waiting.append((row, pool.submit(prepare_row, row)))
                if len(waiting) > num_ahead:
                    yield waiting.popleft()
            yield from waiting
        finally:
            for _, future in waiting:
                future.cancel()


def giving_back(
    prepared_slides: Iterable[tuple[ManifestRow, "Future[PreparedSlide | None]"]], staging: Staging, manifest: Manifest
) -> Generator[tuple[ManifestRow, "Future[PreparedSlide | None]"], None, None]:
    """The same, giving back the copy of each slide when the next one is asked for."""
    for row, prepared in prepared_slides:
        yield row, prepared
        staging.done(manifest.slide_path(row), lambda path: None)


def prepare(
    row: ManifestRow,
    manifest: Manifest,
    place: Place,
    mark: Mark | None,
    *,
    check_files: bool,
    retry_failures: bool,
    copy: Path | None = None,
) -> PreparedSlide | None:
    """A slide and all its patches; `None` if it is finished.

    Args:
        mark: of its files, if they are whole.
        check_files: whether its SHA-256 must be the manifest's.
        retry_failures: whether it is not finished if patches of it failed.
        copy: of the slide, to be read in its place; with `check_files` its SHA-256 was found to be the manifest's.

    Raises:
        SlideError: it cannot be used, or it is not the slide that its finished files are of.
    """
    path = manifest.slide_path(row)
    slide = Slide(path, row.mpp, mpp_overrides=row.mpp_overrides is not None, copy=copy)
    content = slide_content(slide, row.slide_id, mark.slide if mark else None)
    if other_files := files_of_other_name(row, manifest, place, content, slide.info.vendor):
        raise SlideError(
            f"{path}: embedded already as {' '.join(map(str, other_files))}; since another file of the "
            f"same name has come or gone, it is called {row.slide_id}. Delete those files to embed it "
            "under that name, or give a manifest with the ids to keep"
        )
    if mark is not None:
        if changes := content_changes(mark.slide, content, slide.info.vendor):
            where = place.marked_file(row.slide_id)
            raise SlideError(
                f"{path}: not the slide that {where} was made from ({'; '.join(changes)}). Delete that "
                "file to embed the slide anew"
            )
        if not (retry_failures and mark.failed):
            if change := file_change(mark.slide, content):
                made = place.marked_file(row.slide_id)
                say(
                    f"warning: {path}: its file has changed since {made} was made ({change}), though its quickhash "
                    "has not. Was it damaged or repaired? Delete that file to embed the slide anew"
                )
            return None
    if check_files and row.sha256 and copy is None:
        check_sha256(path, row.sha256)
    with slide_failures(path):
        return replace(prepare_slide(slide, row, content, place.grid), copy=copy)


def files_of_other_name(
    row: ManifestRow, manifest: Manifest, place: Place, content: dict[str, Any], vendor: str
) -> list[Path]:
    """The files that a slide of a folder has under another name. A slide is called by its path if another one has the
    same file name, and that one may have come or gone since. Empty if there are none, or if they are of another slide.
    """
    if not manifest.path.is_dir():
        return []  # a manifest's ids are what they are
    stem = Path(row.path).stem
    other = stem if row.slide_id != stem else row.path.replace("/", "__")
    try:
        mark = place.read_mark(other) if place.marked_file(other).exists() else None
    except EmbedError:  # not made by `g2l embed`, so not this slide's
        mark = None
    now = content | {"slide_id": ""}
    same = mark is not None and not content_changes(mark.slide | {"slide_id": ""}, now, vendor)
    return list(place.files(other).values()) if same else []
