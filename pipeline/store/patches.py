"""Patches of a plan's rows: from the slides, or from a store that kept them."""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from pipeline.base.console import Tell, counted
from pipeline.base.cores import usable_cores
from pipeline.base.errors import EmptyPatchError, G2LError, LimitError, PatchError, SlideError
from pipeline.base.images import ImageFormat, decode_image, encode_image, require_lanczos
from pipeline.cohort.plan import PlannedSlides, SlidePlan
from pipeline.cohort.views.views import Views
from pipeline.config.staging import StageFolder
from pipeline.slides.artefacts.patch_checks import LOOKS_BACK, PatchFault
from pipeline.slides.artefacts.patch_qc import PatchChecks
from pipeline.slides.geometry import PILLOW
from pipeline.slides.patch_sample import is_plain
from pipeline.slides.pool import Accepts, SlidePool
from pipeline.slides.reader import Slide
from pipeline.slides.staging.ahead import Copies, KnownCopy, Staging
from pipeline.slides.staging.copies import ExpectedSlide
from pipeline.store.format import Status
from pipeline.store.store import Store, StoredTeacher

if TYPE_CHECKING:
    from pipeline.base.loader import ReadRows

NAMED = 3
"""Slides that a note names. Our choice."""
ROWS_AHEAD = 512
"""So many rows after the slide that is read belong to slides that are opened. Our choice: a second of a fast teacher's
work, so that the opening of a slide, which a file server may take a second for, hides behind the reading of others.
"""
MOST_AHEAD = 4
"""Slides that are opened ahead at most: half of what the pool keeps open."""


@dataclass(frozen=True)
class PatchRead:
    """What became of reading one row: its status, the encoded image if one is kept, and why it failed; of a row that
    `--patch-qc` dropped what was measured and the bound, and of one that it kept a hash of slide and pixels.
    """

    status: Status
    encoded: bytes | None = None
    reason: str = ""
    value: float | None = None
    bound: float | None = None
    digest: bytes = b""


class PlannedPatches:
    """Reads the rows of a plan from its slides; safe to use from many threads. What is odd of the plan or of a slide's
    file goes to `tell`. `accepts_changed`: as in `slides.pool.SlidePool`. `copies`: where copies of the slides are to
    be found; `stage` is the folder where `staged` makes them itself. Where rows are read `in_order`, and not from
    copies, the next slide is opened while one is read, so that nothing waits for it. `checks` drop patches, and with
    `looks_back` also a field of an earlier shard; `dropped` are rows that were dropped before, by number, which are not
    read.

    Raises:
        ConfigError: torch reduces the plan's patches, and the one that is installed cannot.
    """

    def __init__(
        self,
        plan: PlannedSlides,
        image_format: ImageFormat | None,
        slides_root: Path | None = None,
        *,
        tell: Tell,
        accepts_changed: Accepts | None = None,
        copies: Copies | None = None,
        stage: StageFolder | None = None,
        in_order: bool = False,
        checks: PatchChecks | None = None,
        looks_back: bool = False,
        dropped: Mapping[int, PatchRead] = MappingProxyType({}),
    ) -> None:
        if any(slide.geometry.resampling != PILLOW for slide in plan.slides):
            require_lanczos("torch reduces the patches of this plan")
        self._plan = plan
        self._checks = checks
        self._looks_back = looks_back and checks is not None
        self._earlier: dict[int, dict[bytes, int]] = {}  # what `seen_before` will say
        self._dropped = dropped
        self._tell = tell
        self._copies = copies or KnownCopy(None)
        self._stage = stage
        self._staging: Staging | None = None
        self._format = image_format
        self._slides_root = slides_root
        self._slide_of_row = plan.slide_of_row()
        self._coords = plan.coords()
        self._pool = SlidePool(tell=tell, accepts_changed=accepts_changed)
        unknown = [slide.slide_id for slide in plan.slides if not slide.identity.is_content]
        if unknown:
            names = unknown[0] + (", ..." if len(unknown) > 1 else "")
            tell(
                f"note: of {counted(len(unknown), 'slide')} the plan holds no hash ({names}), for an earlier version "
                "made it. That it is the same is checked by size and um/px only; planning again settles it"
            )
        self._lock = threading.Lock()
        self._plain: dict[str, int] = {}
        self._in_order = in_order
        self._latest = -1  # of the slides that are read: the last in order
        self._opened_to = 0  # slides before this one are opened, or will be when they are read

    def plain_note(self) -> str:
        """A note on patches of one colour among those that were read; empty if there were none."""
        with self._lock:
            number, slides = sum(self._plain.values()), sorted(self._plain, key=lambda name: -self._plain[name])
        if not number:
            return ""
        names = ", ".join(slides[:NAMED]) + (", ..." if len(slides) > NAMED else "")
        return (
            f"note: {counted(number, 'patch is', 'patches are')} of one colour throughout, in "
            f"{counted(len(slides), 'slide')} ({names}): they teach nothing. Was glass or a mark taken for "
            "tissue?"
        )

    @contextmanager
    def staged(self, rows: Iterable[Sequence[int]]) -> Iterator[None]:
        """While the block runs, copy the slides of `rows`, each of which is read once, into the folder `stage` ahead of
        use; nothing if there is none. Threads that read may wait for a copy: leave the block before they are joined.

        Raises:
            G2LError: the folder cannot be written.
        """
        if self._stage is None:
            yield
            return
        before = self._copies
        with Staging(self._stage, tell=self._tell) as staging:
            self._copies = self._staging = staging
            staging.expect(self._expected(rows))
            try:
                yield
            finally:
                self._copies, self._staging = before, None

    def claimed_ahead(self, shards: Iterable[int], rows_of: Callable[[int], Sequence[int]]) -> Iterator[int]:
        """The shards, in the plan's order, that turn up one by one while the block of `staged` runs. Where slides are
        staged, the next one is asked for before one is given, so that its slides are copied meanwhile.
        """
        waiting: deque[int] = deque()
        for shard in shards:
            waiting.append(shard)
            if self._staging is not None:
                self._staging.expect(self._expected([rows_of(shard)]))
                if len(waiting) == 1:
                    continue
            yield waiting.popleft()
        yield from waiting

    def _expected(self, rows: Iterable[Sequence[int]]) -> Iterator[ExpectedSlide]:
        """The slides of `rows` in the plan's order, with how often each is used: a row that was dropped needs none."""
        uses = np.zeros(len(self._plan.slides), np.int64)
        for some in rows:
            if self._looks_back and len(some):
                uses[self._slide_of_row[some[0]]] += len(self._rows_before(some[0]))
            read = [row for row in some if row not in self._dropped] if self._dropped else some
            uses += np.bincount(self._slide_of_row[np.asarray(read, np.int64)], minlength=len(uses))
        for number in np.flatnonzero(uses):
            slide = self._plan.slides[number]
            yield ExpectedSlide(self._plan.slide_path(slide, self._slides_root), int(uses[number]), slide.identity)

    def describe(self, row: int) -> dict[str, str | int]:
        """Where a row is from: row, slide, and (x, y) in level 0."""
        return describe_row(self._plan, self._slide_of_row, self._coords, row)

    def read(self, row: int, out: NDArray[np.uint8]) -> PatchRead:
        """Fill `out`, uint8 (T, T, 3), with the tile, or the patch where there is none, as the teacher is to see it;
        `out` is undefined where the read failed, which the result says.

        A lossy format is encoded and decoded, so that teacher, store and student have the same pixels.
        """
        return self.read_some([row], out[None])[0]

    def read_some(self, rows: Sequence[int], out: NDArray[np.uint8]) -> list[PatchRead]:
        """`read` of several rows, into uint8 (N, T, T, 3); neighbours of one slide together, which costs less."""
        results = [self._dropped.get(row) for row in rows]
        to_read = [place for place, result in enumerate(results) if result is None]
        for index, places in groupby(to_read, key=lambda place: int(self._slide_of_row[rows[place]])):
            of_slide = list(places)
            patches = self._read_of_slide(index, [rows[place] for place in of_slide])
            for place, patch in zip(of_slide, patches, strict=True):
                results[place] = self._keep(self._plan.slides[index].slide_id, patch, out[place])
        return [result for result in results if result is not None]

    def _keep(self, slide_id: str, patch: NDArray[np.uint8] | PatchRead, out: NDArray[np.uint8]) -> PatchRead:
        """Put what was read into `out`, and encode it if the store keeps it."""
        if isinstance(patch, PatchRead):
            return patch
        digest = b"" if self._checks is None else self._checks.digest(slide_id, patch)
        if is_plain(patch):
            with self._lock:
                self._plain[slide_id] = self._plain.get(slide_id, 0) + 1
        if self._format is None:
            out[:] = patch
            return PatchRead(Status.OK, digest=digest)
        encoded = encode_image(patch, self._format)
        out[:] = patch if self._format == "jpegxl" else decode_image(encoded, self._format, len(patch))
        return PatchRead(Status.OK, encoded, digest=digest)

    def _read_of_slide(self, index: int, rows: Sequence[int]) -> list[NDArray[np.uint8] | PatchRead]:
        """Tiles or patches of rows of one slide, uint8 (T, T, 3) each, or why one cannot be read, or is dropped."""
        planned = self._plan.slides[index]
        path = self._plan.slide_path(planned, self._slides_root)
        if self._in_order and index > self._latest and isinstance(self._copies, KnownCopy):
            for following in self._to_open_after(index):
                threading.Thread(target=self._open_ahead, args=(following,), name="g2l-open", daemon=True).start()
        try:
            with self._copies.use(path, self._pool.close, len(rows)) as copy:
                return self._read_patches(rows, planned, path, copy)
        except SlideError as error:  # it is in a bucket, and cannot be copied
            return [PatchRead(Status.NO_SLIDE, reason=str(error))] * len(rows)

    def _rows_before(self, row: int) -> range:
        """The rows of the slide of a row that come before it: rows lie in the order of slides."""
        return range(int(np.searchsorted(self._slide_of_row, self._slide_of_row[row])), row)

    def looking_back(self, shards: Iterable[int], rows_of: Callable[[int], Sequence[int]]) -> Iterator[int]:
        """The shards, as they are to be read; before each, what `seen_before` says of it is read.

        That is before any row of the shard is: a slide's copy that stays for what is read later would hold the room
        that a further slide of the same shard waits for.
        """
        for shard in shards:
            if self._looks_back:
                first = rows_of(shard)[0]
                self._earlier[first] = self._read_before(first)
            yield shard

    def seen_before(self, row: int) -> dict[bytes, int]:
        """Hashes of the patches of the rows of its slide that come before a shard's first row, each with the first row
        that has it. Without patches that fail or are dropped; nothing without `looks_back`. Said once, after
        `looking_back` has given the shard.
        """
        return self._earlier.pop(row) if self._looks_back else {}

    def _read_before(self, row: int) -> dict[bytes, int]:
        """What `seen_before` says: reads those rows once more, in threads."""

        def digest_of(earlier: int) -> bytes:
            planned = self._plan.slides[self._slide_of_row[earlier]]
            path = self._plan.slide_path(planned, self._slides_root)
            try:
                with self._copies.use(path, self._pool.close) as copy:
                    (patch,) = self._read_patches([earlier], planned, path, copy)
            except SlideError:  # it is in a bucket, and cannot be copied
                return b""
            return (
                b""
                if isinstance(patch, PatchRead) or self._checks is None
                else self._checks.digest(planned.slide_id, patch)
            )

        first_of: dict[bytes, int] = {}
        with ThreadPoolExecutor(usable_cores()) as pool:
            rows = self._rows_before(row)
            for earlier, digest in zip(rows, pool.map(digest_of, rows), strict=True):
                if digest:
                    first_of.setdefault(digest, earlier)
        return first_of

    def _read_patches(
        self, rows: Sequence[int], planned: SlidePlan, path: Path, copy: Path | None
    ) -> list[NDArray[np.uint8] | PatchRead]:
        """As `_read_of_slide`, of a slide whose copy is there."""
        try:
            slide = self._pool.open(path, planned.manifest_mpp, planned.identity, planned.geometry, copy)
        except SlideError as error:
            return [failed_read(error)] * len(rows)
        corners = [(int(x), int(y)) for x, y in self._coords[np.asarray(rows)]]
        return [self._checked(planned, slide, patch) for patch in slide.read_patches(corners, planned.geometry)]

    def _checked(
        self, planned: SlidePlan, slide: Slide, tile: NDArray[np.uint8] | G2LError
    ) -> NDArray[np.uint8] | PatchRead:
        """A tile that the checks keep, or what became of the row."""
        if isinstance(tile, G2LError):
            return failed_read(tile)
        if self._checks is None:
            return tile
        mpp, coords = planned.geometry.target_mpp, planned.coords_l0_px
        read = partial(slide.read_patch, geometry=planned.geometry)
        try:
            found = self._checks.find(planned.slide_id, coords, mpp, tile, read)
        except (PatchError, SlideError) as error:
            return failed_read(error)
        return tile if found is None else dropped_read(found)

    def _to_open_after(self, index: int) -> list[int]:
        """The slides to open while that one is read: those of the next `ROWS_AHEAD` rows; each is named once."""
        with self._lock:
            if index <= self._latest:
                return []
            self._latest = index
            first_row = int(np.searchsorted(self._slide_of_row, index + 1))
            following = np.unique(self._slide_of_row[first_row : first_row + ROWS_AHEAD])[:MOST_AHEAD].tolist()
            opened_to, self._opened_to = self._opened_to, max([self._opened_to, *(number + 1 for number in following)])
        return [number for number in following if number >= opened_to]

    def _open_ahead(self, index: int) -> None:
        """Open a slide; one that fails to open fails again when it is read, as does what is at a limit by then."""
        planned = self._plan.slides[index]
        with contextlib.suppress(SlideError, LimitError):
            path = self._plan.slide_path(planned, self._slides_root)
            self._pool.open(path, planned.manifest_mpp, planned.identity, planned.geometry)


def failed_read(error: G2LError) -> PatchRead:
    """What became of a row whose reading ended so.

    Raises:
        G2LError: that is neither the patch's nor the slide's.
    """
    statuses = ((EmptyPatchError, Status.EMPTY), (PatchError, Status.UNREADABLE), (SlideError, Status.NO_SLIDE))
    for kind, status in statuses:
        if isinstance(error, kind):
            return PatchRead(status, reason=str(error))
    raise error


def dropped_read(found: PatchFault) -> PatchRead:
    """What became of a row that a check dropped."""
    return PatchRead(Status[found.reason.upper()], value=found.value, bound=found.bound)


def dropped_rows(teacher: StoredTeacher) -> dict[int, PatchRead]:
    """The rows of finished shards that `--patch-qc` dropped, by number."""
    return {
        record["row"]: PatchRead(Status[record["status"]], value=record["value"], bound=record["bound"])
        for record in teacher.ledger.dropped()
    }


class StoredPatches:
    """Reads the rows of a plan from a store that kept their pixels; safe to use from many threads.

    A row that could not be read when the store was made cannot be read here, for the reason that the store gives.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._status = store.first.status()
        self._reasons = {failure["row"]: failure["reason"] for failure in store.first.ledger.failures()}
        self._dropped = dropped_rows(store.first)
        self._slide_of_row = store.plan.slide_of_row()
        self._coords = store.plan.coords()

    @contextmanager
    def staged(self, rows: Iterable[Sequence[int]]) -> Iterator[None]:
        """As `PlannedPatches.staged`; there are no slides."""
        yield

    def claimed_ahead(self, shards: Iterable[int], rows_of: Callable[[int], Sequence[int]]) -> Iterator[int]:
        """As `PlannedPatches.claimed_ahead`; there are no slides."""
        yield from shards

    def looking_back(self, shards: Iterable[int], rows_of: Callable[[int], Sequence[int]]) -> Iterator[int]:
        """As `PlannedPatches.looking_back`; nothing is read."""
        yield from shards

    def seen_before(self, row: int) -> dict[bytes, int]:
        """As `PlannedPatches.seen_before`; what was there twice has been dropped."""
        return {}

    def describe(self, row: int) -> dict[str, str | int]:
        """As `PlannedPatches.describe`."""
        return describe_row(self._store.plan, self._slide_of_row, self._coords, row)

    def read(self, row: int, out: NDArray[np.uint8]) -> PatchRead:
        """As `PlannedPatches.read`; nothing is encoded.

        Raises:
            StoreError: the row's pixels are damaged.
        """
        if row in self._dropped:
            return self._dropped[row]
        status = Status(int(self._status[row]))
        if status not in (Status.OK, Status.NOT_FINITE):  # an embedding that is not finite says nothing of the pixels
            return PatchRead(status, reason=self._reasons.get(row, "it is not in the store"))
        out[:] = self._store.read_pixels(row)
        return PatchRead(Status.OK)

    def read_some(self, rows: Sequence[int], out: NDArray[np.uint8]) -> list[PatchRead]:
        """As `PlannedPatches.read_some`."""
        return [self.read(row, patch) for row, patch in zip(rows, out, strict=True)]


class ViewedPatches:
    """All views of rows: `read_some` fills (N, K, P, P, 3), from view number `first` on, where that of `source` fills
    tiles (N, T, T, 3). Of a single view, it fills (N, P, P, 3).
    """

    def __init__(self, source: "ReadRows[PatchRead]", views: Views, tile_px: int, first: int = 0) -> None:
        self._source = source
        self._views = views
        self._first = first
        self._tile_px = tile_px

    def read(self, row: int, out: NDArray[np.uint8]) -> PatchRead:
        """As the source's, of all views: (K, P, P, 3)."""
        return self.read_some([row], out[None])[0]

    def read_some(self, rows: Sequence[int], out: NDArray[np.uint8]) -> list[PatchRead]:
        """As the source's, of all views."""
        tiles = np.empty((len(rows), self._tile_px, self._tile_px, 3), np.uint8)
        results = self._source(rows, tiles)
        for row, tile, of_row, result in zip(rows, tiles, out, results, strict=True):
            if result.status is Status.OK:
                for view, seen in enumerate(of_row if self._views.count > 1 else [of_row], self._first):
                    seen[:] = self._views.apply(tile, row, view)
        return results


def describe_row(
    plan: PlannedSlides, slide_of_row: NDArray[np.int32], coords_l0_px: NDArray[np.int64], row: int
) -> dict[str, str | int]:
    """Where a row is from: row, slide, and (x, y) in level 0."""
    x, y = coords_l0_px[row]
    return {"row": row, "slide_id": plan.slides[slide_of_row[row]].slide_id, "x": int(x), "y": int(y)}


def patches_to_embed(
    teacher: StoredTeacher,
    plan: PlannedSlides,
    slides_root: Path | None,
    *,
    encode: bool = True,
    tell: Tell,
    accepts_changed: Accepts | None = None,
    stage: StageFolder | None = None,
    copies: Copies | None = None,
) -> PlannedPatches | StoredPatches:
    """The patches that a teacher sees: the store's pixels where it has some that this teacher does not write itself,
    else those of the slides.

    Those of slides are read in order and encoded as the teacher's shards keep them, unless `encode` is off: then some
    are tried. They are checked for the first teacher, if its store says so; the others, and rounds, drop what it did.
    """
    if teacher.store.has_pixels and not teacher.keeps_pixels:
        return StoredPatches(teacher.store)
    image_format = teacher.store.image_format if encode and teacher.keeps_pixels else None
    checked = teacher.is_first and "patch_qc" in teacher.settings
    return PlannedPatches(
        plan,
        image_format,
        slides_root,
        tell=tell,
        accepts_changed=accepts_changed,
        copies=copies,
        stage=stage,
        in_order=encode,
        checks=PatchChecks(teacher.patch_px, teacher.settings["patch_qc"]) if checked else None,
        looks_back=checked and teacher.settings["patch_qc"] >= LOOKS_BACK,
        dropped={} if teacher.is_first else dropped_rows(teacher.store.first),
    )
