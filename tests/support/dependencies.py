"""Link what the project says it depends on into an environment, which then lacks what it uses without saying so."""

from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def declared(requirements: list[str]) -> list[metadata.Distribution]:
    """The distributions of these requirements, and of all that they require on this machine."""
    waiting, done = [Requirement(text) for text in requirements], {}
    while waiting:
        wanted = waiting.pop()
        key = (wanted.name.lower(), frozenset(wanted.extras))
        if key in done or not applies(wanted, frozenset()):
            continue
        done[key] = metadata.distribution(wanted.name)
        further = [Requirement(text) for text in done[key].requires or []]
        waiting += [each for each in further if applies(each, key[1])]
    return list(done.values())


def applies(requirement: Requirement, extras: frozenset[str]) -> bool:
    """Whether a requirement holds on this machine for one who asks for these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def link_declared(requirements: list[str], site_packages: Path) -> None:
    """Link the packages and metadata of `declared` into `site_packages`."""
    for distribution in declared(requirements):
        for name in {path.parts[0] for path in distribution.files or []} - {"..", "__pycache__"}:
            link = site_packages / name
            if not link.exists():
                link.symlink_to(Path(str(distribution.locate_file(name))))
