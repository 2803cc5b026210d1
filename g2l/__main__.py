"""What must be right before anything else is imported: whose modules are taken, what signals do, which encoding text
has.
"""

import os
import signal
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""Where the packages of G2L lie."""


def end_without_words() -> None:
    """Let Ctrl-C end the process as it ends any other, without a traceback, until `interrupts` answers it. What the
    parent has this process ignore stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


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
    end_without_words()
    ignore_modules_here()
    use_utf8()
    from pipeline.base import interrupts

    interrupts.install()
    from stages import cli

    cli.main()


if __name__ == "__main__":
    main()
