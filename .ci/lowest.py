"""Print the lowest version of each package that pyproject.toml allows, as constraints for pip.

Tools of developers (the extras `dev` and `docs`) are left out: nobody who uses G2L has them. What these packages need
themselves is as new as pip finds it, as in a user's environment.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^]]*\])?(?P<bounds>[^;]*)")


def main() -> None:
    """Print a line a package.

    Raises:
        SystemExit: a package has no lower bound.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = (lines for name, lines in project["optional-dependencies"].items() if name not in ("dev", "docs"))
    for line in (*project["dependencies"], *(line for lines in extras for line in lines)):
        found = REQUIREMENT.match(line)
        bound = re.search(r"[>=]=\s*([0-9.]+)", found["bounds"]) if found else None
        if found is None or (bound is None and found["name"] != "pip"):  # pip installs itself
            raise SystemExit(f"pyproject.toml: {line} has no lower bound")
        if bound:
            print(f"{found['name']}=={bound[1]}")


if __name__ == "__main__":
    main()
