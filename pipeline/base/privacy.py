"""Keep libraries from writing into the user's home or reporting to their makers, before they load.

A variable that the user has set keeps its value. G2L itself writes only the demo's cache into the home
(`demo_data.cache_folder`); weights from a hub lie in the hub's cache. Left out: compiled kernels that a GPU's driver
caches (`~/.nv`).
"""

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

from pipeline.base import interrupts

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime 1.29 and later: a device id in ~/.cache/Microsoft, and reports
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: versions of libraries in its requests
    "DO_NOT_TRACK": "1",  # honoured by several libraries, huggingface_hub among them
}
MATPLOTLIB_FOLDER = "MPLCONFIGDIR"
"""Folder of matplotlib's font list and settings; by default ~/.cache/matplotlib and ~/.config/matplotlib."""


def leave_no_trace() -> None:
    """Set the variables that the user has not set, for this process and its children.

    matplotlib creates its folder if it needs one; it is removed when this process ends, also by a signal. Where no
    temporary folder can be written, matplotlib is left to itself: commands that need neither go on.
    """
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    if MATPLOTLIB_FOLDER not in os.environ:
        try:
            temporary = Path(tempfile.gettempdir())
        except FileNotFoundError:
            return
        folder = temporary / f"g2l-matplotlib-{secrets.token_hex(8)}"
        os.environ[MATPLOTLIB_FOLDER] = str(folder)
        owner = os.getpid()
        atexit.register(_remove, folder, owner)
        interrupts.undo_at_end(lambda: _remove(folder, owner), folder)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child shares it
        shutil.rmtree(folder, ignore_errors=True)
