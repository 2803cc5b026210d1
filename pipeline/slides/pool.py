"""Keep slides open for many threads, each checked to be the one that was planned."""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from pipeline.base.console import Tell
from pipeline.base.errors import SlideError
from pipeline.slides.direct.tile_cache import TileCache
from pipeline.slides.geometry import PatchGeometry
from pipeline.slides.identity import MPP_ROUNDING, SlideIdentity
from pipeline.slides.reader import Slide, slide_failures

Accepts = Callable[[Path, str], bool]
"""Whether to read a file that has changed since it was planned, by its path and the SHA-256 of its parts."""

_told: set[str] = set()
"""What this process has told of slides: a slide is opened again and again."""


def accept_all(path: Path, sha256: str) -> bool:
    """Read every changed file."""
    return True


class SlidePool:
    """Keeps the last few slides open for many threads. A slide that cannot be opened fails again at once.

    Rows come slide by slide, so a few slides suffice. A slide is opened by one thread while others read others. A slide
    dropped from the pool closes when its last reader is done. A file that has changed since it was planned is refused,
    unless `accepts_changed` says otherwise of its path and the SHA-256 of its parts. Then a warning goes to `tell`,
    once a process.
    """

    def __init__(self, *, tell: Tell, accepts_changed: Accepts | None = None, capacity: int = 8) -> None:
        self._tell = tell
        self._accepts_changed = accepts_changed
        self._capacity = capacity
        self._lock = threading.Lock()
        self._slides: OrderedDict[Path, Future[Slide]] = OrderedDict()
        self._cache = TileCache()

    def open(
        self,
        path: Path,
        manifest_mpp: float | None,
        planned: SlideIdentity,
        geometry: PatchGeometry,
        copy: Path | None = None,
    ) -> Slide:
        """Open the slide at `path` and check that it is the planned one and gives the planned geometry.

        Args:
            manifest_mpp: um/px from the plan's manifest; the plan has decided to use it.
            planned: identity of the slide in the plan.
            geometry: how the plan reads its patches.
            copy: as in `Slide`.

        Raises:
            SlideError: it does not open, or is another slide.
        """
        with self._lock:
            opened = self._slides.get(path)
            is_mine = opened is None
            if opened is None:
                opened = self._slides[path] = Future()
                if len(self._slides) > self._capacity:
                    self._slides.popitem(last=False)
            self._slides.move_to_end(path)
        if is_mine:
            try:
                opened.set_result(self._open(path, manifest_mpp, planned, geometry, copy))
            except SlideError as error:
                opened.set_exception(error)
            except BaseException as error:
                with self._lock:
                    self._slides.pop(path, None)
                opened.set_exception(error)
                raise
        try:
            return opened.result()
        except SlideError as error:
            raise SlideError(str(error)) from None  # a new exception for each thread

    def _open(
        self, path: Path, manifest_mpp: float | None, planned: SlideIdentity, geometry: PatchGeometry, copy: Path | None
    ) -> Slide:
        slide = Slide(path, manifest_mpp, mpp_overrides=True, cache=self._cache, copy=copy)
        self._tell_once(require_planned(slide, planned, geometry, accepts_changed=self._accepts_changed))
        with slide_failures(path):
            self._tell_once(slide.direct.note(geometry.level))
        return slide

    def close(self, path: Path) -> None:
        """Forget a slide; it closes when its last reader is done."""
        with self._lock:
            self._slides.pop(path, None)

    def _tell_once(self, note: str) -> None:
        with self._lock:
            is_new = bool(note) and note not in _told
            _told.add(note)
        if is_new:
            self._tell(note)


def require_planned(
    slide: Slide, planned: SlideIdentity, geometry: PatchGeometry, *, accepts_changed: Accepts | None = None
) -> str:
    """Check that a slide is the planned one. Plans of earlier versions may lack its content; then size, resolution and
    level decide.

    Args:
        accepts_changed: whether to return a warning if the file's bytes have changed while its quickhash has not,
            instead of refusing it: the user says that the slide was repaired. Otherwise the warning is "".

    Raises:
        SlideError: it is another slide, or its file has changed; says what differs.
    """
    now, info = slide.identity(planned.file_bytes), slide.info
    changes = planned.changes(now)
    if not math.isclose(info.mpp, geometry.slide_mpp, rel_tol=MPP_ROUNDING):
        changes.append(f"um/px: {geometry.slide_mpp:g} -> {info.mpp:g}")
    known = info.known_downsamples(geometry.level)
    if not any(math.isclose(each, geometry.downsample, rel_tol=MPP_ROUNDING) for each in known):
        changes.append(f"downsample of level {geometry.level}: {geometry.downsample:g} -> {next(iter(known), None)}")
    if changes:
        raise SlideError(
            f"{slide.path}: not the slide that was planned (its content has changed: "
            f"{'; '.join(changes)}). Plan again, or restore the slide"
        )
    if changes := planned.file_changes(now):
        words = (
            f"{slide.path}: its file has changed since it was planned ({'; '.join(changes)}), though its quickhash, "
            "of the coarsest level alone, has not"
        )
        if accepts_changed is None or not accepts_changed(slide.path, now.parts_sha256):
            raise SlideError(
                f"{words}. Restore it or plan again; if it was repaired, stage one with --retry-failures reads it"
            )
        return f"warning: {words}. It is read"
    return ""
