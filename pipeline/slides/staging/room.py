"""The folder of staged slides: whose copies lie there, how much room there is, and what killed commands left.

Several commands may share a folder. Each has a folder of its own in it, named as half-written files are (`asides`), so
that whoever comes next removes it once its process has gone. A slide's files are made at their full size before they
are copied, under a lock: so the sizes of all files in the folder are what is taken, and never more than the bound.
A command takes no more than its share, the bound divided by the commands that are there, unless it has nothing yet.

DIR/staged.SCOPE-PID-START-RANDOM.g2l-part/0/a.svs
"""

import contextlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.base import interrupts
from pipeline.base.errors import BusyError, G2LError
from pipeline.config.staging import StageFolder
from pipeline.disk.asides import aside_name, is_aside_of, remove, remove_asides_of
from pipeline.disk.files import bytes_below
from pipeline.disk.locks import exclusive_soon

STAGED = "staged"
"""Name of commands' folders before their tags, and of the lock."""
FREE_SHARE = 0.5
"""Share of the free disk that may be used if the user gives no bound. Our choice: the output may be on that disk."""
LOCK_SECONDS = 30.0
"""Longest wait for another command that looks for room, which takes milliseconds. Our choice."""


class SizedFile(Protocol):
    """A file that is to be copied: its path from the folder that it will lie in, and its size in bytes."""

    @property
    def name(self) -> str: ...

    @property
    def num_bytes(self) -> int: ...


class StageRoom:
    """This command's part of the folder.

    Raises:
        G2LError: the folder cannot be written.
    """

    def __init__(self, stage: StageFolder) -> None:
        self.folder = Path(os.path.realpath(stage.folder))
        self._own = self.folder / aside_name(STAGED)
        self._number = 0
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_asides_of(self.folder / STAGED, locked=False)
            with interrupts.guard:
                self._own.mkdir(mode=0o700)
                self._key = interrupts.undo_at_end(lambda: remove(self._own), self._own)
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise G2LError(f"--stage-dir {stage.folder} cannot be written ({error.strerror})") from None
        self.most_bytes = int(free * FREE_SHARE) if stage.most_bytes is None else stage.most_bytes

    def take(self, parts: Sequence[SizedFile]) -> Path | None:
        """Make the files of a slide at their full size, in a new folder, which is returned; `None` if there is no room
        now.

        Raises:
            OSError: the folder cannot be written.
        """
        needed = sum(part.num_bytes for part in parts)
        with contextlib.ExitStack() as held:
            try:
                held.enter_context(
                    exclusive_soon(self.folder / STAGED, "g2l, looking for room for a slide", LOCK_SECONDS)
                )
            except BusyError:
                return None
            if not self._has_room(needed):
                remove_asides_of(self.folder / STAGED, locked=False)  # of commands that were killed since
                if not self._has_room(needed):
                    return None
            with interrupts.guard:
                slide = self._own / str(self._number)
                slide.mkdir()
                self._number += 1
                for part in parts:
                    file = slide / part.name
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with open(file, "xb") as f:
                        f.truncate(part.num_bytes)
            return slide

    def give_back(self, slide: Path) -> None:
        """Remove the files of a slide, or what is there of them."""
        with interrupts.guard:
            remove(slide)

    def close(self) -> None:
        """Remove this command's folder."""
        with interrupts.guard:
            remove(self._own)
            interrupts.settled(self._key)

    def _has_room(self, needed: int) -> bool:
        """Whether so many more bytes are within the bound, this command's share of it, and the disk."""
        names = [name for name in os.listdir(self.folder) if is_aside_of(name, STAGED)]
        taken = {name: bytes_below(self.folder / name) for name in names}
        own = taken.get(self._own.name, 0)
        if sum(taken.values()) + needed > self.most_bytes:
            return False
        if own and own + needed > self.most_bytes // max(len(taken), 1):
            return False
        return needed <= shutil.disk_usage(self.folder).free
