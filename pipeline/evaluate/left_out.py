"""Name what was left out for a fault when the rest cannot be scored: it may be the reason."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.base.errors import BenchmarkError, ConfigError
from pipeline.report.content import Exclusion

MAX_NAMED = 5
"""Of what was left out, in an error. Our choice: the first mostly tell the kind of fault."""


@contextmanager
def naming_left_out(exclusions: Sequence[Exclusion]) -> Iterator[None]:
    """Add to an error of the block what had been left out before it for a fault, not by rule.

    Raises:
        BenchmarkError, ConfigError: that of the block.
    """
    try:
        yield
    except (BenchmarkError, ConfigError) as error:
        failed = [each for each in exclusions if not each.by_rule]
        if not failed:
            raise
        lines = [f"\n  {each.what}: {each.why}" for each in failed[:MAX_NAMED]]
        more = f"\n  and {len(failed) - MAX_NAMED:,} more" if len(failed) > MAX_NAMED else ""
        raise type(error)(f"{error}. Left out before:{''.join(lines)}{more}") from None
