"""Score what a probe predicted: the metrics of classification with their resamples, means over its runs. Pure."""

from pipeline.evaluate.bootstrap import Draws, GroupResamples, classification_draws, mean_of_draws
from pipeline.evaluate.folds import Rows
from pipeline.evaluate.probes.linear_probe import Probed, ProbeTask


def probe_draws(task: ProbeTask, probed: Probed, rows: Rows, resamples: GroupResamples) -> dict[str, Draws]:
    """`bootstrap.METRICS` over `rows`, which `resamples` draw from; the AUROC is that of pairs within folds.

    Raises:
        BenchmarkError: see `classification_draws`.
    """
    truth, parts = task.truth[rows], task.parts[rows]
    of_runs = [classification_draws(truth, run.probabilities[rows], resamples, parts) for run in probed.each_run()]
    return {name: mean_of_draws([draws[name] for draws in of_runs]) for name in of_runs[0]}
