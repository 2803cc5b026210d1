"""How soon the paper's early stop ends a run: losses are simulated that scatter by 1 and fall in several ways.

A run of `--recipe paper` on a thousand slides (a thousand patches each, a tenth held out, batches of 32) has 28,125
steps an epoch. Losses of steps are drawn independently, as batches are: in the demo's run they scatter by 0.07, nearly
symmetrically (skewness 0.02 to 0.2) and without correlation from step to step (-0.01 to -0.04).

The last line is the mean of runs whose losses do not fall, over what `EarlyStop.steps_by_chance` says: 1 but for the
scatter of so many runs.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np

from pipeline.base.console import table
from pipeline.config.recipes import recipe_values
from pipeline.training.early_stop import EarlyStop

STEPS_AN_EPOCH = 28_125
AT_ONCE = 1000
FALLS: dict[str, Callable[[float], float]] = {
    "not at all": lambda step: 0.0,
    "by 0.0001 a step": lambda step: -0.0001 * step,
    "by 0.001 a step": lambda step: -0.001 * step,
    "by 0.002 a step": lambda step: -0.002 * step,
    "by 10 in all, as step^-0.3": lambda step: 10 * step**-0.3,
    "by 100 in all, as step^-0.3": lambda step: 100 * step**-0.3,
    "by 100 in all, as step^-0.5": lambda step: 100 * step**-0.5,
}
"""The part of a loss that is no scatter, over steps from 1."""


def paper_stop() -> EarlyStop:
    """The early stop of `--recipe paper`."""
    train = recipe_values("paper", "train-student")
    return EarlyStop(train["early_stop"], train["early_stop_window"], train["early_stop_patience"])


def last_step(fall: Callable[[float], float], seed: int) -> int:
    """The step that a run ends after, or that of ten epochs."""
    stop, draws, step = paper_stop(), np.random.default_rng(seed), 0
    while step < 10 * STEPS_AN_EPOCH:
        for loss in draws.normal(0, 1, AT_ONCE).tolist():
            step += 1
            if stop.see(step, 0, loss + fall(step)):
                return step
    return step


def main() -> int:
    """Print the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=300, help="simulated runs for each fall [300]")
    runs = parser.parse_args().runs
    rows, ratio = [], 0.0
    for words, fall in FALLS.items():
        steps = np.array([last_step(fall, seed) for seed in range(runs)])
        half, most = np.percentile(steps, [50, 95])
        beyond = float(np.mean(steps > STEPS_AN_EPOCH))
        rows.append((words, f"{steps.mean():,.0f}", f"{half:,.0f}", f"{most:,.0f}", f"{beyond:.1%}"))
        ratio = ratio or steps.mean() / (paper_stop().steps_by_chance() or 1.0)
    print(table(rows, ("the loss falls", "steps, mean", "half by", "95 % by", "beyond an epoch")))
    print(f"\nratio: {ratio:.2f} (needs 0.8 to 1.2)")
    return 0 if 0.8 < ratio < 1.2 else 1


if __name__ == "__main__":
    sys.exit(main())
