"""Damaged inputs through the real commands, and what may not come of them.

For every input: no traceback, no abort, no hang, no exit code but 0, 1 and 3, nothing half-written left behind, no code
of the input's run. What makes a file unusable must be noticed, and the file named. A case is fixed by the campaign's
seed and its number.
"""

import random
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Lock

from pipeline.base.errors import EXIT_ERROR, EXIT_OK, EXIT_PARTIAL
from support.fuzz_damage import OWNED, Damage, damages_of
from support.fuzz_inputs import KINDS, World
from support.fuzz_kinds import Kind
from support.warm import Ended, WarmCommands

HANG_SECONDS = 30.0
"""The most that a damaged input may take; on a busy machine `SLOWER` times what the undamaged one took."""
SLOWER = 10
MEMORY_BYTES = 6 << 30
"""What a command may allocate: a file that claims terabytes must not be believed."""
SHORT_TRAINING = Path(__file__).with_name("short_training.py")
"""Run before each command: what it sets shortens a training that no damage reaches."""
TRACEBACK = ("Traceback (most recent call last)", "Exception ignored in", "Fatal Python error")
ARTEFACTS = ("store.zarr", "run", "half", "student", "embedded", "reproduced", "evaluated", "study", "curve")
"""Folders that stand for the files in them: to name the folder is to name the file."""
LISTINGS = ("failures.csv", "*audit.csv", "report.json", "left_out.csv")
"""Where commands list what failed, and why."""


@dataclass(frozen=True)
class Case:
    """One damaged input.

    Attributes:
        number: in its campaign.
        kind: what is damaged and who reads it.
        file: the damaged one, below the world.
        damage: how.
    """

    number: int
    kind: Kind
    file: Path
    damage: Damage

    @property
    def must(self) -> bool:
        """Whether the command must notice."""
        return self.kind.decides and self.damage.must

    def __str__(self) -> str:
        return f"case {self.number}: {self.kind.name}: {self.file}: {self.damage.name}"


@dataclass
class Tally:
    """What a campaign found: inputs and exit codes by kind, and the faults, a line each."""

    inputs: int = 0
    codes: dict[str, dict[int, int]] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def add(self, case: Case, ended: Ended, fault: str) -> None:
        """Count a case."""
        self.inputs += 1
        of_kind = self.codes.setdefault(case.kind.name, {})
        of_kind[ended.code] = of_kind.get(ended.code, 0) + 1
        if fault:
            self.faults.append(f"{case}: {fault}")


def make_case(world: World, seed: int, number: int, kinds: tuple[Kind, ...] = KINDS) -> Case:
    """The case of this number: kinds in turn, file and damage drawn."""
    rng = random.Random(f"{seed}:{number}")
    kind = kinds[number % len(kinds)]
    files = files_of(world.folder, kind.damaged)
    assert files, f"{kind.name}: no file {kind.damaged}"
    file = rng.choice(files)
    return Case(number, kind, file.relative_to(world.folder), rng.choice([*damages_of(file), *kind.more]))


def files_of(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """Files below a folder by patterns, sorted."""
    return sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})


class Fuzzer:
    """Runs cases in a folder of its own, one after the other."""

    def __init__(self, world: World, folder: Path, seed: int, warm: WarmCommands, seconds: dict[str, float]) -> None:
        """`seconds` that the undamaged input of each kind took; whoever is first to meet a kind notes them there."""
        self.world, self.folder, self.seed, self.warm, self.seconds = world, folder, seed, warm, seconds

    def run(self, case: Case) -> tuple[Ended, str]:
        """Run a case; how it ended, and what was wrong, or nothing.

        Raises:
            AssertionError: the command fails on the undamaged input.
        """
        if case.kind.name not in self.seconds:
            ended = self.call(case.kind, HANG_SECONDS * SLOWER)
            assert ended.code == EXIT_OK, f"{case.kind.name}, undamaged: exit code {ended.code}\n{ended.err}"
            self.seconds[case.kind.name] = ended.seconds
        self.copy(case.kind)
        case.damage.apply(self.world_copy / case.file, random.Random(f"{self.seed}:{case.number}:damage"))
        ended = self.call(case.kind, max(HANG_SECONDS, SLOWER * self.seconds[case.kind.name]), copied=True)
        return ended, fault_of(case, ended, self.world_copy, self.out)

    @property
    def world_copy(self) -> Path:
        return self.folder / "in"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def copy(self, kind: Kind) -> None:
        """A copy of what the command needs of the world, and an empty folder for its outputs."""
        for folder in (self.world_copy, self.out):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        for name in kind.takes:
            source, target = self.world.folder / name, self.world_copy / name
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)

    def call(self, kind: Kind, timeout: float, copied: bool = False) -> Ended:
        """Run a kind's command on the copy of the world."""
        if not copied:
            self.copy(kind)
        words: list[object] = list(self.world.words(kind, self.world_copy, self.out))
        return self.warm.run(
            words, timeout=timeout, memory_bytes=MEMORY_BYTES, folder=self.out, quick_end=True, hook=SHORT_TRAINING
        )


def fault_of(case: Case, ended: Ended, world_copy: Path, out: Path) -> str:
    """What was wrong with a run, in words; empty if nothing was. The folders are as the run left them."""
    said = ended.out + ended.err
    if ended.hung:
        return f"hangs: {ended.err[-3000:]}"
    if any(mark in said for mark in TRACEBACK):
        return f"traceback: {said[-1500:]}"
    if ended.code not in (EXIT_OK, EXIT_ERROR, EXIT_PARTIAL):
        return f"exit code {ended.code}: {said[-600:]}"
    if (world_copy / case.file).parent.joinpath(OWNED).exists():
        return "code of the input was run"
    if ended.orphans:
        return f"stays behind: {ended.orphans}"
    if left := [path.name for top in (out, world_copy) for path in top.rglob("*.g2l-*")]:
        return f"left behind: {left}"
    if ended.code == EXIT_ERROR and not said.strip():
        return "exit code 1 without a word"
    if case.must and ended.code == EXIT_OK:
        return f"not noticed, exit code 0: {said[-600:]}"
    if case.must and not is_named(case.file, said + listed(world_copy, out)):
        return f"exit code {ended.code}, but the file is not named: {said[-600:]}"
    return ""


def listed(*folders: Path) -> str:
    """The lists that commands leave of what failed."""
    paths = [path for folder in folders for name in LISTINGS for path in folder.rglob(name) if path.is_file()]
    return "\n".join(path.read_text(errors="replace") for path in paths)


def is_named(file: Path, words: str) -> bool:
    """Whether a text names a file: by its name, by that without its endings unless that is a number, or by what it is
    a part of: the folder of a store, run, student, study or report, or the place in it.
    """
    stem = file.name.split(".")[0]
    names = [file.name, *([] if stem.isdecimal() else [stem])]
    if file.parts[0] in ARTEFACTS:
        names += [file.parts[0], *("/".join(file.parts[1:end]) for end in range(2, len(file.parts)))]
    return any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", words) for name in names)


def fuzz(
    world: World, folder: Path, seed: int, numbers: Iterable[int], processes: int = 1, kinds: tuple[Kind, ...] = KINDS
) -> Iterator[tuple[Case, Ended, str]]:
    """Run the cases of these numbers, `processes` at a time; each with how it ended and what was wrong."""
    waiting, lock, seconds = iter(numbers), Lock(), dict[str, float]()
    done: Queue[tuple[Case, Ended, str] | BaseException | None] = Queue()

    def work(index: int) -> None:
        try:
            with WarmCommands(folder / str(index) / "logs") as warm:
                fuzzer = Fuzzer(world, folder / str(index), seed, warm, seconds)
                while True:
                    with lock:
                        number = next(waiting, None)
                    if number is None:
                        break
                    case = make_case(world, seed, number, kinds)
                    done.put((case, *fuzzer.run(case)))
        except BaseException as error:  # noqa: BLE001  (raised again by whoever waits)
            done.put(error)
        done.put(None)

    with ThreadPoolExecutor(processes) as pool:
        for index in range(processes):
            pool.submit(work, index)
        for _ in range(processes):
            while (result := done.get()) is not None:
                if isinstance(result, BaseException):
                    raise result
                yield result
