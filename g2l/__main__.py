"""Set up the process before anything else is imported: streams, module path, signals, text encoding.

Only `os` and `sys`, which the interpreter has loaded by now, are imported before the path is cleaned.
"""

import os
import sys

from g2l.streams import open_closed_streams, outlast_standard_error

ROOT = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""Folder of the packages of G2L."""


def end_without_traceback() -> None:
    """Let Ctrl-C end the process without a traceback until `interrupts` handles it; if the parent process had it
    ignored, it stays ignored. Call it after `ignore_modules_here`: the user may have a `signal.py`.
    """
    import signal  # once the path is clean

    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def ignore_modules_here() -> None:
    """Import nothing from the working folder, where the user may have a `pipeline.py` or `torch.py`.

    `python -m` and an empty entry in PYTHONPATH put that folder first on the path.
    """
    try:
        here = os.getcwd()
    except FileNotFoundError:  # the working folder was deleted
        return
    if os.path.realpath(here) == ROOT or os.path.basename(here) in ("site-packages", "dist-packages"):
        return
    sys.path[:] = [entry for entry in sys.path if entry not in ("", ".", here)]


def use_utf8() -> None:
    """Restart in Python's UTF-8 mode if the locale has another encoding: names in manifests and stores are UTF-8
    whatever the terminal uses. Output keeps the terminal's encoding, and writes what that lacks as `\\xe9`.
    """
    if sys.flags.utf8_mode or sys.getfilesystemencoding().lower().replace("-", "") == "utf8" or not sys.executable:
        return
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    os.environ.setdefault("PYTHONIOENCODING", f"{encoding}:backslashreplace")
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])


def main() -> None:
    """Set up the process, then run the command."""
    open_closed_streams()
    ignore_modules_here()
    end_without_traceback()
    use_utf8()
    outlast_standard_error()
    from pipeline.base import interrupts  # once the path is clean
    from pipeline.base.cores import ask_for_files  # as above

    interrupts.install()
    ask_for_files()
    from stages import cli  # once signals are handled

    cli.main()


if __name__ == "__main__":
    main()
