"""Libraries that, unasked, would write into the user's home or report to their makers: told not to, before they load.

Whoever sets one of these variables has asked, and keeps the value. The one place of ours in the home is the demo's
cache (`demo_data.cache_folder`); what the user has fetched from a hub lies in the hub's own cache. Left out: what the
driver of a GPU keeps of kernels that it compiles (`~/.nv`).
"""

import atexit
import os
import secrets
import shutil
import tempfile
from pathlib import Path

SILENT = {
    "ORT_DISABLE_TELEMETRY": "1",  # ONNX Runtime 1.29 and later: a device id in ~/.cache/Microsoft, and reports
    "HF_HUB_DISABLE_TELEMETRY": "1",  # huggingface_hub: versions of libraries in its requests
    "DO_NOT_TRACK": "1",  # asked by several, huggingface_hub among them
}
FIGURES = "MPLCONFIGDIR"
"""Where matplotlib keeps its list of fonts and its settings; else ~/.cache/matplotlib and ~/.config/matplotlib."""


def leave_no_trace() -> None:
    """Set the variables for this process and its children, where the user has not.

    matplotlib's folder is made by it, if at all, and removed when this process ends.
    """
    for name, value in SILENT.items():
        os.environ.setdefault(name, value)
    if FIGURES not in os.environ:
        folder = Path(tempfile.gettempdir()) / f"g2l-matplotlib-{secrets.token_hex(8)}"
        os.environ[FIGURES] = str(folder)
        atexit.register(_remove, folder, os.getpid())


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a forked child shares it
        shutil.rmtree(folder, ignore_errors=True)
