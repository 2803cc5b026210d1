"""Early stop: end a run when its training loss has exceeded its own running mean too often.

G2L stops "when the loss has exceeded the running mean of the last 100 steps more than 10 times". Read exactly: a step
exceeds if its loss is greater than the mean of the losses of the 100 steps before it; the first 100 steps never do.
The run ends after the 11th. "More than 10 times" has two readings, and both are here: in consecutive steps, or in
total. Decision 0044 says why a recipe takes the first.

The mean is over whole values by exact summation, and the state is in the checkpoint: a run that is killed and
continued ends after the same step. Losses that only scatter exceed their mean half of the time, so that every run ends
sooner or later: `EarlyStop.steps_by_chance`. Pure.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pipeline.base.console import counted

Reading = Literal["consecutive", "total"]
STOP = "stop"
"""Kind of the line of `metrics.jsonl` that says why a run ended early."""
LONG_WINDOW = 3
"""A window this many times as long as the steps in a row that end a run is hardly moved by them: simulated runs last as
long as the formula says, within a tenth. A window as long as those steps makes it twice that. Our choice."""
MANY_TIMES = 3.0
"""A plan this many times as long as chance alone takes is worth a note: 1 in 20 such runs would come to its end
(exp(-3)). Our choice."""
MOST_PATIENCE = 99
"""Steps in a row from which on chance takes longer than any run."""


@dataclass(frozen=True)
class Stop:
    """Why a run ended early.

    Attributes:
        step: the last step.
        epoch: the epoch that it was in, from 0, as in the line of a step.
        loss: its loss.
        mean: of the losses of the steps before it.
        times: how many steps have exceeded the mean, this one included.
    """

    step: int
    epoch: int
    loss: float
    mean: float
    times: int

    def line(self) -> dict[str, Any]:
        """The line of `metrics.jsonl`."""
        return {"kind": STOP, **asdict(self)}

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> "Stop":
        """The inverse of `line`.

        Raises:
            KeyError, TypeError, ValueError: it is damaged.
        """
        step, epoch, times = (int(line[name]) for name in ("step", "epoch", "times"))
        return cls(step, epoch, float(line["loss"]), float(line["mean"]), times)

    def words(self, num_steps: int | None = None) -> str:
        """Why the run ended, in a sentence; `num_steps` are those that it was planned for."""
        planned = f" of {num_steps:,}" if num_steps else ""
        losses = counted(self.times, "loss was", "losses were")
        last = "it was" if self.times == 1 else "the last was"
        return (
            f"Stopped early after step {self.step:,}{planned}: {losses} above the running mean; {last} "
            f"{self.loss:.4f}, the mean before it {self.mean:.4f}."
        )


class EarlyStop:
    """Watches the losses of a run, one a step.

    Attributes:
        stop: why the run ended early; `None` while it has not.
    """

    def __init__(self, reading: Reading, window: int, patience: int) -> None:
        self.stop: Stop | None = None
        self._reading, self._patience = reading, patience
        self._losses: deque[float] = deque(maxlen=window)
        self._times = 0
        self._read: Callable[[], float] | None = None

    def steps_by_chance(self) -> float | None:
        """How many steps a run lasts on average if its losses only scatter about a level: independently and with one
        step as likely above the mean as below. Those of a loss that falls last longer.

        Consecutive: the window, and the expected number of throws of a coin until as many heads in a row, 2^(n+1) - 2.
        Total: the window, and two steps for each that exceeds. `None` for a window too short to say.
        """
        window, needed = self._losses.maxlen or 0, self._patience + 1
        if self._reading == "total":
            return window + 2.0 * needed
        if window < LONG_WINDOW * needed:
            return None
        return window + 2.0 ** min(needed + 1, MOST_PATIENCE) - 2

    def chance_note(self, num_steps: int, *, embedded_at_once: bool) -> str:
        """That a run of `num_steps` is likely to end long before by chance; "" if it is not.

        Args:
            num_steps: steps that are planned.
            embedded_at_once: whether views for later epochs were made beforehand.
        """
        expected = self.steps_by_chance()
        if expected is None or num_steps < MANY_TIMES * expected:
            return ""
        views = (
            " Views of later epochs are then not shown: `extract-teacher --views-per-epoch fresh` makes them only as "
            "epochs come to them."
            if embedded_at_once
            else ""
        )
        return (
            f"note: --early-stop {self._reading}: by chance alone it stops after about {expected:,.0f} steps, once "
            f"losses fall little against their scatter; {num_steps:,} are planned, and the learning rate falls "
            f"over all of them.{views} --early-stop off trains to the end (docs/paper.md)"
        )

    def expect(self, read: Callable[[], float]) -> None:
        """Take a function that gives the loss of a step; it is called when all work of the step is queued."""
        self._read = read

    def ends_after(self, step: int, epoch: int) -> bool:
        """Whether the run ends after `step` (from 1) of `epoch` (from 0), whose loss was expected."""
        assert self._read is not None, "no loss is expected"
        return self.see(step, epoch, self._read())

    def see(self, step: int, epoch: int, loss: float) -> bool:
        """Take the loss of a step; returns whether the run ends after it."""
        window = self._losses.maxlen
        if len(self._losses) == window:
            mean = math.fsum(self._losses) / len(self._losses)
            if loss > mean:
                self._times += 1
            elif self._reading == "consecutive":
                self._times = 0
            if self._times > self._patience:
                self.stop = Stop(step, epoch, loss, mean, self._times)
        self._losses.append(loss)
        return self.stop is not None

    def state(self) -> dict[str, Any]:
        """What the next step depends on, as plain values."""
        stop = None if self.stop is None else asdict(self.stop)
        return {"losses": list(self._losses), "times": self._times, "stop": stop}

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a `state`."""
        self._losses.clear()
        self._losses.extend(state["losses"])
        self._times = state["times"]
        self.stop = None if state["stop"] is None else Stop(**state["stop"])
