"""The processes that a launcher started for one output: the first one leads, the others help.

The leader holds the output's lock, makes what there is to make once, calls the others when there is work to share, and
speaks for all: one line of progress, each note once. What they share is the launcher's key-value store (`torchrun`, or
anything that sets RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT). No process group is joined: nothing is computed
together, and no process waits for another but at the end.

    beat/I     grows twice a second while the leader of incarnation I lives
    call/I/N   JSON: what there is to do, for the N-th time; all of it is done before the leader calls again
    over/I     the leader has ended
    I/...      who has come to this leader's calls, and who has left
    I/N/...    counters of what the N-th call was to
    said/N     notes of the others, for the leader to say
    report/U   JSON: what came of unit U
    reported/N the unit of the N-th report
"""

import contextlib
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.base import console
from pipeline.base.console import Progress
from pipeline.base.errors import G2LError, first_line
from pipeline.base.launched.claims import Claims, KeyValue, register
from pipeline.base.outside import printable

BEAT_SECONDS = 0.5
PATIENCE_SECONDS = 300.0
"""How long the others wait for a sign of the leader. Our choice: a file server may hang for minutes."""
LEAVE_SECONDS = 30.0
"""How long the leader, who may host the store, waits at the end for the others. Our choice."""
MISSED_BEATS = 20
"""Beats after which a note that was announced and never came is given up: its process was killed in between."""


PIECE = 1 << 20
"""Characters of a value that the launcher's store gets at once. Our choice: torch's takes 8 MiB, and drops whoever
sends more; a character that is not ASCII has up to four bytes.
"""
IN_PIECES = "\0pieces "
"""What the store has in the place of a longer value, before the number of its pieces and what their keys begin with. No
JSON and no note begins so.
"""


class GroupError(G2LError):
    """The processes of a launched group have lost each other."""


class ReachedStore:
    """The launcher's store; an answer that does not come is an error for the user.

    Raises:
        GroupError: from every method: it does not answer.
    """

    def __init__(self, store: Any) -> None:
        self._store = store

    def add(self, key: str, amount: int, /) -> int:
        """As `KeyValue.add`."""
        with _reaching():
            return int(self._store.add(key, amount))

    def set(self, key: str, value: str, /) -> None:
        """As `KeyValue.set`; a long value in pieces, before the key is there."""
        with _reaching():
            if len(value) > PIECE:
                pieces = [value[start : start + PIECE] for start in range(0, len(value), PIECE)]
                place = f"{key}/{self._store.add(f'{key}/times', 1)}"  # whoever reads an earlier value has that one's
                for number, piece in enumerate(pieces):
                    self._store.set(f"{place}/{number}", piece)
                value = f"{IN_PIECES}{len(pieces)} {place}"
            self._store.set(key, value)

    def get(self, key: str, /) -> bytes:
        """As `KeyValue.get`."""
        with _reaching():
            value = bytes(self._store.get(key))
            if not value.startswith(IN_PIECES.encode()):
                return value
            count, _, place = value.decode().removeprefix(IN_PIECES).partition(" ")
            return b"".join(bytes(self._store.get(f"{place}/{number}")) for number in range(int(count)))

    def check(self, keys: list[str], /) -> bool:
        """As `KeyValue.check`."""
        with _reaching():
            return bool(self._store.check(keys))

    def compare_set(self, key: str, expected: str, desired: str, /) -> bytes:
        """As `KeyValue.compare_set`."""
        with _reaching():
            return bytes(self._store.compare_set(key, expected, desired))

    def delete_key(self, key: str, /) -> bool:
        """As `KeyValue.delete_key`."""
        with _reaching():
            return bool(self._store.delete_key(key))


@contextmanager
def _reaching() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:  # torch's DistError is a RuntimeError
        raise GroupError(
            f"the launcher's store does not answer ({first_line(error)}). Has the launcher ended? What is finished is "
            "safe: run the same command again"
        ) from error


def join(command: str, output: Path) -> "LaunchedGroup":
    """Join the processes that were started for this command and output.

    Raises:
        GroupError: the launcher's store cannot be reached.
    """
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]  # heavy; only launched processes need it

    store, rank, world = launcher_store()
    name = hashlib.sha256(f"{output.absolute()}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    # Another number of processes is another group: its ranks are not those whose claims may be void.
    return LaunchedGroup(ReachedStore(PrefixStore(f"g2l/{command}/{name}/{world}", store)), rank, world)


def launcher_store() -> tuple[Any, int, int]:
    """The launcher's key-value store, this process's number and how many there are.

    Raises:
        GroupError: it cannot be reached.
    """
    from torch.distributed.rendezvous import rendezvous  # heavy; only launched processes need it

    with _reaching():
        store, rank, world = next(rendezvous("env://"))
    return store, rank, world


class LaunchedGroup:
    """This process among the others.

    Attributes:
        store: shared by all.
        member: this process.
        world: how many there are.
    """

    def __init__(self, store: KeyValue, rank: int, world: int) -> None:
        self.store, self.world = store, world
        self.member = register(store, rank)
        self._leader = self.member.incarnation  # of the session; for others once they are called
        self._number = 0  # of the last call
        self._seen: tuple[int, float] = (-1, time.monotonic())
        self._stop = threading.Event()
        self._heard, self._missed = store.add("said", 0), 0
        self._progress: tuple[Progress, int] | None = None
        self._num_open = 0
        self._num_reported, self._unread = 0, list[int]()
        self._said: set[str] = set()

    @property
    def is_leader(self) -> bool:
        """Whether this process leads: the first one does."""
        return self.member.rank == 0

    @property
    def session(self) -> str:
        """Name of all that this leader calls to."""
        return str(self._leader)

    @property
    def work(self) -> str:
        """Name of what the leader has called to last."""
        return f"{self._leader}/{self._number}"

    # The leader

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Let the others know that this process lives, and say what they say; at the end let them go.

        Ended by an error, the others end as well.
        """
        beats = threading.Thread(target=self._keep_beating, name="g2l-beat", daemon=True)
        how = "failed"
        with console.said_to(self._say_once):
            beats.start()
            try:
                yield
                how = "done"
            finally:
                with contextlib.suppress(GroupError):
                    self.store.set(f"over/{self._leader}", how)
                    self._wait_for_the_others()
                self._stop.set()
                beats.join()
                with contextlib.suppress(GroupError):
                    self._beat()

    def call(self, message: dict[str, Any]) -> None:
        """Tell the others what there is to do: JSON types."""
        self._number += 1
        self.store.set(f"call/{self.work}", json.dumps(message))

    @contextmanager
    def showing(self, progress: Progress, num_open: int = 0) -> Iterator[None]:
        """Show what all processes do since the last call; for units whose steps become known one by one, `num_open` is
        how many units there are.
        """
        self._progress, self._num_open = (progress, 0), num_open
        try:
            yield
        finally:
            with contextlib.suppress(GroupError):
                self._show()
            self._progress = None

    def _wait_for_the_others(self) -> None:
        """Wait until those who came have left, if they live: this process may host the store."""
        until, ranks = time.monotonic() + LEAVE_SECONDS, list(range(1, self.world))
        while (ranks := [rank for rank in ranks if self._is_here(rank)]) and time.monotonic() < until:
            time.sleep(BEAT_SECONDS / 5)

    def _is_here(self, rank: int) -> bool:
        """Whether the process of this rank has come to the session, and has neither left nor been replaced since."""
        number = self.store.add(f"{self.session}/came/{rank}", 0)
        gone = max(self.store.add(f"{self.session}/left/{rank}", 0), self.store.add(f"rank/{rank}", 0) - 1)
        return number > gone

    def _keep_beating(self) -> None:
        with contextlib.suppress(GroupError):  # the main thread meets it as well
            while not self._stop.wait(BEAT_SECONDS):
                self._beat()

    def _beat(self) -> None:
        self.store.add(f"beat/{self._leader}", 1)
        while self._heard < self.store.add("said", 0):
            key = f"said/{self._heard + 1}"
            if self.store.check([key]):
                self._say_once(self.store.get(key).decode())
            elif self._missed < MISSED_BEATS:
                self._missed += 1
                break
            self._heard, self._missed = self._heard + 1, 0
        if not self._stop.is_set():
            self._show()

    def _show(self) -> None:
        if self._progress is not None:
            progress, shown = self._progress
            steps = self.store.add(f"{self.work}/steps", 0)
            self._progress = progress, steps
            if self._num_open and (known := self.store.add(f"{self.work}/known", 0)):
                expected = self.store.add(f"{self.work}/expected", 0)
                others = round(max(self._num_open - known, 0) * expected / known)
                progress.expect(expected + others, is_estimate=known < self._num_open)
            progress.note(failed=self.store.add(f"{self.work}/failed", 0), processes=self.world)
            progress.step(steps - shown)

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            console.show_note(text)

    # The others

    @contextmanager
    def helping(self) -> Iterator[Iterator[dict[str, Any]]]:
        """Gives the leader's calls, what there is to do in each, waiting for the next one until the leader has ended.
        Notes go to the leader.

        Raises:
            GroupError: on asking for a call: the leader has failed, which it has told the user, or says nothing any
                more.
        """
        with console.said_to(self._send):
            try:
                yield self._calls()
            finally:
                if self._number:
                    with contextlib.suppress(GroupError):
                        self._count_up_to_me("left")

    def _calls(self) -> Iterator[dict[str, Any]]:
        while (message := self._await_call()) is not None:
            yield message

    def _count_up_to_me(self, what: str) -> None:
        """Set a counter of this process to its incarnation: a value that needs no second question to be read."""
        key = f"{self.session}/{what}/{self.member.rank}"
        self.store.add(key, self.member.incarnation - self.store.add(key, 0))

    def _send(self, text: str) -> None:
        with contextlib.suppress(GroupError):
            self.store.set(f"said/{self.store.add('said', 1)}", printable(text))  # it takes no odd bytes of names

    def _await_call(self) -> dict[str, Any] | None:
        """What a leader that lives calls to next, `None` once it has ended. One that is gone may have left its call, or
        its failure, behind.
        """
        first_seen: dict[int, int] = {}
        while True:
            leader = self.store.add("rank/0", 0)
            if leader != self._leader:
                self._leader, self._number = leader, 0
            beat = self.store.add(f"beat/{self._leader}", 0)
            lives = beat > first_seen.setdefault(self._leader, beat)
            over = f"over/{self._leader}"
            if self.store.check([over]) and (lives or self.store.get(over) == b"done"):
                self.look()
                return None
            call = f"call/{self._leader}/{self._number + 1}"
            if lives and self.store.check([call]):
                self._number += 1
                self._count_up_to_me("came")
                message: dict[str, Any] = json.loads(self.store.get(call))
                return message
            self._require_beat(beat)
            time.sleep(BEAT_SECONDS / 5)

    def look(self) -> None:
        """See that the leader is well; the leader itself has nothing to see.

        Raises:
            GroupError: it has failed, or has not been heard of for long.
        """
        if self.is_leader:
            return
        key = f"over/{self._leader}"
        if self.store.check([key]):
            if self.store.get(key) == b"failed":
                raise GroupError("the first process has failed, and says why; this one ends as well")
            return
        self._require_beat(self.store.add(f"beat/{self._leader}", 0))

    def _require_beat(self, beat: int) -> None:
        last, since = self._seen
        if beat != last:
            self._seen = beat, time.monotonic()
        elif time.monotonic() - since > PATIENCE_SECONDS:
            raise GroupError(
                f"nothing was heard of the first process for {PATIENCE_SECONDS:g} s. What is finished is safe: run the "
                "same command again"
            )

    # All

    def share(
        self,
        units: Sequence[int],
        is_on_disk: Callable[[int], bool],
        failed: int = 0,
        *,
        space: str = "",
        in_runs: bool = False,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> "SharedWork":
        """The units of the last call, to be done by all processes; `failed` rows there were before.

        Args:
            space: as for `Claims`.
            in_runs: whether a process takes neighbours as far as that keeps all at work.
            meanwhile: called again and again by this process while it works, and while it waits for others.
        """
        processes = self.world if in_runs else None

        def look() -> None:
            self.look()
            meanwhile()

        claims = Claims(self.store, self.member, self.work, units, is_on_disk, look, space=space, processes=processes)
        return SharedWork(self, claims, failed, meanwhile)

    def new_reports(self) -> list[dict[str, Any]]:
        """What has been said of units since the last question, and before the first one by a leader that is gone."""
        first, self._num_reported = self._num_reported + 1, self.store.add("reported", 0)
        self._unread += range(first, self._num_reported + 1)
        # One whose process was killed while it announced it never comes.
        ready = {number: self.store.check([f"reported/{number}"]) for number in self._unread}
        self._unread = [number for number, is_there in ready.items() if not is_there]
        units = [self.store.get(f"reported/{number}").decode() for number, is_there in ready.items() if is_there]
        return [json.loads(self.store.get(f"report/{unit}")) for unit in units]


class SharedWork:
    """Units that all processes do; in the place of a `Progress`, what this one does is counted with the others'."""

    def __init__(self, group: LaunchedGroup, claims: Claims, failed: int, meanwhile: Callable[[], None]) -> None:
        self._group, self._failed, self._meanwhile = group, failed, meanwhile
        self.rounds, self.done, self.take_back = claims.rounds, claims.done, claims.take_back

    def step(self, count: int = 1) -> None:
        """Count what is done."""
        self._group.store.add(f"{self._group.work}/steps", count)
        self._meanwhile()

    def add_failed(self, count: int) -> int:
        """Count failures; returns those of all processes, and of earlier runs."""
        return self._failed + self._group.store.add(f"{self._group.work}/failed", count)

    def expect(self, count: int) -> None:
        """Say how many steps a unit has, where that becomes known only now."""
        self._group.store.add(f"{self._group.work}/expected", count)
        self._group.store.add(f"{self._group.work}/known", 1)

    def report(self, unit: int, record: dict[str, Any]) -> None:
        """Say what came of a unit, before it is `done`: JSON types."""
        store = self._group.store
        store.set(f"report/{unit}", json.dumps(record))
        store.set(f"reported/{store.add('reported', 1)}", str(unit))

    def reports(self, units: Iterable[int]) -> dict[int, dict[str, Any]]:
        """What came of units, as far as their processes have said so."""
        store = self._group.store
        said = (unit for unit in units if store.check([f"report/{unit}"]))
        return {unit: json.loads(store.get(f"report/{unit}")) for unit in said}

    def note(self, **figures: str | int | float) -> None:
        """Show nothing: the leader shows the figures of all."""
