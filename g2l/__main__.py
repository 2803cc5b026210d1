"""What must be right before anything else is imported: whose modules are taken, what signals do, which encoding text
has.
"""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent.parent)
"""Where the packages of G2L lie."""


def ignore_modules_here() -> None:
    """Take no module from the working folder, where `pipeline.py` or `torch.py` may be a file of the user's.

    `python -m` puts the folder first on the path, and so does an empty entry in PYTHONPATH.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # the folder is gone
        return
    if os.path.realpath(here) == ROOT or os.path.basename(here) in ("site-packages", "dist-packages"):
        return
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".", here)]


def use_utf8() -> None:
    """Start anew in Python's UTF-8 mode where the locale has another encoding: the names in manifests and stores are
    UTF-8 whatever the terminal takes. Output keeps the terminal's encoding; what that lacks is written as `\\xe9`.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower().replace("-", "") == "utf8" or not sys.executable:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def main() -> None:
    """The command, in a process of its own."""
    ignore_modules_here()
    use_utf8()
    from pipeline import interrupts

    interrupts.install()
    from stages import cli

    cli.main()


if __name__ == "__main__":
    main()
