"""A user's home that nothing may be written to."""

from pathlib import Path

from pipeline.base.privacy import MATPLOTLIB_FOLDER, SILENT


def at_home(home: Path) -> dict[str, str]:
    """Variables of a user whose home is `home`, and who has set nothing else."""
    return dict.fromkeys((*SILENT, MATPLOTLIB_FOLDER), "") | {
        "HOME": str(home),
        "HF_HOME": "",
        "XDG_CACHE_HOME": "",
        "XDG_CONFIG_HOME": "",
        "XDG_DATA_HOME": "",
    }


def traces(home: Path) -> list[str]:
    return sorted(str(path.relative_to(home)) for path in home.rglob("*"))
