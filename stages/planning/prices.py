"""What a patch costs, for a plan with a budget: by its options, by those of stage one, or by the rate of a store."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.base.console import counted, say
from pipeline.base.errors import ConfigError
from pipeline.cohort.draws.budget import ASSUMED_WIDTH, Prices
from pipeline.config.plan import PlanConfig
from pipeline.config.stages import ExtractConfig
from pipeline.encoders.table import named_spec
from pipeline.store.store import Store
from pipeline.store.teachers import made_with
from stages.planning.rates import rate_differences, rate_options, rate_words

FEW_PATCHES = 1000
"""Fewest patches whose rate says that of a cohort. Our choice: some batches more than a start takes."""


def prices_of(config: PlanConfig, extract: ExtractConfig | None = None) -> Prices:
    """What a patch costs: by the options of the plan, else by those of the stage one that it is made for.

    Raises:
        ConfigError: a budget in bytes, and the width of the teacher's embedding is not known; or a budget in time, and
            the store whose rate counts has nothing finished.
        StoreError: that is no store.
    """
    prices, kind = Prices(), config.parsed_budget.kind if config.parsed_budget else None
    if kind == "bytes":
        width, each, pixels = ASSUMED_WIDTH, 2, prices.pixels
        if extract is not None:
            width = named_spec(extract.teacher).width
            each, pixels = np.dtype(extract.dtype).itemsize * (extract.views or 1), extract.pixels
        if not (config.budget_width or width):
            raise ConfigError(f"--budget {config.budget}: say with --budget-width how wide the teacher's embedding is")
        prices = Prices((config.budget_width or width) * each, config.budget_pixels or pixels)
    if kind == "seconds":
        now = {"--patch-px": config.patch_px, "--tile-px": config.read_px} | (rate_options(extract) if extract else {})
        prices = Prices(patches_a_second=config.rate or stored_rate(config.rate_from, now))
    return prices


def stored_rate(store: Path | None, now: Mapping[str, str | int]) -> float:
    """Patches a second of one process, with all their views, by the ledgers of a store's first teacher and its rounds.
    Says what they are of, and what was otherwise in that store than in the stage one that is planned, of which `now`
    has what is known (`planning.rates`).

    Raises:
        ConfigError: they do not say, or a round is not finished, so that nobody knows how many views are meant.
        StoreError: it is no store.
    """
    assert store is not None  # the options see to it
    first = Store(store).first
    if made_with(first) != "extract-teacher":
        raise ConfigError(f"--rate-from {store}: its features were imported, so it does not say the rate. Give --rate")
    each = first.ledger.row_seconds()
    if each is None:
        raise ConfigError(f"--rate-from {store}: nothing there is finished. Give --rate, or a store that is")
    for made in first.rounds:
        of_round = made.ledger.row_seconds()
        if of_round is None or made.pending:
            raise ConfigError(
                f"--rate-from {store}: view {made.own_view} is not finished, and the rate is that of patches with all "
                "their views. Finish it with the same `g2l extract-teacher`, or give --rate"
            )
        each += of_round
    patches = first.ledger.num_done()
    if patches < FEW_PATCHES:
        say(
            f"note: --rate-from {store}: the rate is that of {counted(patches, 'patch', 'patches')}, in which the "
            f"start counts; {FEW_PATCHES:,} and more say it better"
        )
    say(f"note: --rate-from {store}: {1 / each:.4g} patches a second of {rate_words(first)}")
    if others := rate_differences(first, now):
        say(
            f"warning: --rate-from {store} was made with other options ({'; '.join(others)}), so that stage one may "
            "take far more time than the budget, or less. Give a store that was made alike, or --rate"
        )
    return 1 / each
