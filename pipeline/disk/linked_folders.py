"""Links to folders that are not followed when a tree is read: decision 0039 says which are."""

import os
from pathlib import Path

SYSTEM = ("/proc", "/sys", "/dev")
"""Folders in which the system shows itself: no end of entries, and no data of users."""
MEMORY = "/dev/shm"
"""A place of users' files below one of them."""


def leads_out(folder: Path | str, top: Path | str) -> bool:
    """Whether a folder is really one that the tree `top` lies in, `top` itself, or one of the system's (`/proc`): to
    follow a link to it would be to read the tree again with all beside it, or to find no end.
    """
    real = Path(os.path.realpath(folder))
    in_system = any(map(real.is_relative_to, SYSTEM)) and not real.is_relative_to(MEMORY)
    return in_system or Path(os.path.realpath(top)).is_relative_to(real)
