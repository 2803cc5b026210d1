"""The folder of staged slides: whose copies lie there, how much room there is, and what killed commands left.

Several commands may share a folder. Each has a folder of its own in it, named as half-written files are (`asides`), so
that whoever comes next removes it once its process has gone. A slide's files are made at their full size before they
are copied, under a lock: so the sizes of all files in the folder are what is taken, and never more than the bound.
A command takes no more than its share, the bound divided by the commands that are there, unless it has nothing yet.
Another user cannot look into the folders of slides: for them, the name of an empty file says how many bytes there are.

DIR/staged.SCOPE-PID-START-RANDOM.g2l-part/0/a.svs
DIR/staged.SCOPE-PID-START-RANDOM.g2l-part/taken-1234567
"""

import contextlib
import os
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.base import interrupts
from pipeline.base.errors import BusyError, G2LError
from pipeline.config.staging import StageFolder
from pipeline.disk.asides import aside_name, is_aside_of, remove, remove_asides_of, writer_of
from pipeline.disk.files import bytes_below
from pipeline.disk.locks import LOCK_SUFFIX, exclusive_soon

STAGED = "staged"
"""Name of commands' folders before their tags, and of the lock."""
NOTED = "taken-"
"""Name, before the number, of the file that says how many bytes a command's slides have."""
FOR_OTHERS, FOR_US = 0o755, 0o700
"""Modes of a command's folder, in which other users see `NOTED`, and of the folders of slides in it."""
LOCK_MODE = 0o644
"""Mode of the lock while it is held: what another user cannot read is not known to be held."""
FREE_SHARE = 0.5
"""Share that may be used if the user gives no bound, of what is free on the disk or taken by slides that are staged
there. Our choice: the output may be on that disk.
"""
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
        self._noting = threading.Lock()
        self._noted: dict[Path, int] = {}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            remove_asides_of(self.folder / STAGED, locked=False)
            with interrupts.guard:
                self._own.mkdir(mode=FOR_US)
                self._key = interrupts.undo_at_end(lambda: remove(self._own), self._own)
                self._own.chmod(FOR_OTHERS)  # whatever the umask
                self._note_file(0).touch()
            usable = shutil.disk_usage(self.folder).free + sum(self._taken().values())
        except OSError as error:
            raise G2LError(f"--stage-dir {stage.folder} cannot be written ({error.strerror})") from None
        self.most_bytes = int(usable * FREE_SHARE) if stage.most_bytes is None else stage.most_bytes

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
            with contextlib.suppress(OSError):
                os.chmod(self.folder / f"{STAGED}{LOCK_SUFFIX}", LOCK_MODE)
            if not self._has_room(needed):
                remove_asides_of(self.folder / STAGED, locked=False)  # of commands that were killed since
                if not self._has_room(needed):
                    return None
            with interrupts.guard:
                slide = self._own / str(self._number)
                slide.mkdir(mode=FOR_US)
                self._number += 1
                self._note(slide, needed)
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
            with contextlib.suppress(OSError):
                self._note(slide, 0)

    def close(self) -> None:
        """Remove this command's folder."""
        with interrupts.guard:
            remove(self._own)
            interrupts.settled(self._key)

    def _has_room(self, needed: int) -> bool:
        """Whether so many more bytes are within the bound, this command's share of it, and the disk."""
        taken = self._taken()
        own = taken.get(self._own.name, 0)
        if sum(taken.values()) + needed > self.most_bytes:
            return False
        if own and own + needed > self.most_bytes // max(len(taken), 1):
            return False
        return needed <= shutil.disk_usage(self.folder).free

    def _taken(self) -> dict[str, int]:
        """Bytes of each command's slides, by the name of its folder; without what another user's command left when it
        was killed, which that user alone can remove.

        Raises:
            OSError: the folder cannot be listed.
        """
        folders = [self.folder / name for name in os.listdir(self.folder) if is_aside_of(name, STAGED)]
        return {
            folder.name: max(bytes_below(folder), noted_bytes(folder)) for folder in folders if not is_stuck(folder)
        }

    def _note(self, slide: Path, num_bytes: int) -> None:
        """Note how many bytes a slide has, 0 once it is gone.

        Raises:
            OSError: the folder cannot be written.
        """
        with self._noting:
            before = self._note_file(sum(self._noted.values()))
            self._noted[slide] = num_bytes
            before.rename(self._note_file(sum(self._noted.values())))
            if not num_bytes:
                del self._noted[slide]

    def _note_file(self, num_bytes: int) -> Path:
        return self._own / f"{NOTED}{num_bytes}"


def is_stuck(folder: Path) -> bool:
    """Whether a command's folder is another user's, and the command has gone."""
    writer = writer_of(folder.name)
    try:
        return os.lstat(folder).st_uid != os.geteuid() and writer is not None and writer.is_running() is False
    except OSError:
        return False


def noted_bytes(folder: Path) -> int:
    """How many bytes a command's slides have by its own word; 0 if it says nothing, as earlier versions do."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(NOTED) and name[len(NOTED) :].isdecimal():
                return int(name[len(NOTED) :])
    return 0
