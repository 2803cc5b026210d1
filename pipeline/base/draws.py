"""Seeds of draws: each has a purpose word of its own, so that no two of them share a key. Pure.

Draws by rank of a hash (`sampling`, `training.rows`, `cohort.views`) name their purpose in the hash itself. Generators
that take one number as their seed get it here. A run of stage two keeps the draws that it was begun with: `RunDraws`.
"""

import hashlib
from dataclasses import dataclass

RUN_VERSION = 2
"""Of the draws, figures and arithmetic of a run that is begun now.

1 had one key for which view a row shows and what the view is, one seed for the projector's weights, dropout and a
student's random weights, the order of the first epoch for calibration, explained variance as its figure of the
projection, and TensorFloat-32 in float32 convolutions on CUDA. Runs of version 1 have no `version` in their record.
"""


def draw_seed(purpose: str, *values: int) -> int:
    """A seed of 63 bits for one purpose, from its word and the `values` (the user's seed, an epoch, ...) alone."""
    text = "\0".join([purpose, *map(str, values)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class RunDraws:
    """The draws of a run of stage two, by the version that it was begun with and the user's seed.

    Random weights of a student are those of the seed itself in every version: `run@before` makes them again.
    """

    seed: int
    version: int = RUN_VERSION

    @property
    def which_view(self) -> str:
        """Purpose word of the draw of which view a row shows in an epoch; "view" is that of what a view is."""
        return "view" if self.version < 2 else "which view"

    @property
    def calibration(self) -> str:
        """Purpose word of the order in which rows are taken to calibrate an untrained student."""
        return "order" if self.version < 2 else "calibration"

    @property
    def projector_seed(self) -> int:
        """Seed of the projectors' first weights."""
        return self.seed if self.version < 2 else draw_seed("projector", self.seed)

    def dropout_seed(self, rank: int) -> int:
        """Seed of what a step draws (dropout, drop-path) in the process of that rank."""
        return self.seed + rank if self.version < 2 else draw_seed("dropout", self.seed, rank)
