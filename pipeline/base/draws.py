"""Seeds of random draws: each draw hashes its own purpose word, so that no two share a key. Pure.

Draws that rank rows by a hash (`sampling`, `training.rows.order`, `cohort.views.views`) put the purpose into that hash.
Generators that need a single number get it here. A run of stage two keeps the draws it was begun with: `RunDraws`.
"""

import hashlib
from dataclasses import dataclass

RUN_VERSION = 5
"""Version of the draws, figures and precision of runs begun now.

Version 1 used one key both to choose a row's view and to make the view; one seed for the projector's weights, dropout
and a student's random weights; the first epoch's order for calibration; explained variance to score the projection; and
TensorFloat-32 in float32 convolutions on CUDA. Records of version 1 have no `version`. Versions 1 and 2 drew a row's
view anew in each epoch, so that some were shown more often than others. Versions 1 to 3, in several processes, computed
a student's own batch normalisation in each process alone. Versions 1 to 4 changed colours in float32.
"""


def draw_seed(purpose: str, *values: int) -> int:
    """A 63-bit seed for one purpose, from its word and `values` (the user's seed, an epoch, ...) alone."""
    text = "\0".join([purpose, *map(str, values)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


@dataclass(frozen=True)
class RunDraws:
    """The draws of a run of stage two, from the version it was begun with and the user's seed.

    Every version draws a student's random weights from the seed itself: `run@before` makes them again.
    """

    seed: int
    version: int = RUN_VERSION

    @property
    def which_view(self) -> str:
        """Purpose word of the draw that chooses a row's view in an epoch; "view" is the draw that makes a view."""
        if self.version < 2:
            return "view"
        return "which view" if self.version < 3 else "order of views"

    @property
    def views_in_turn(self) -> bool:
        """Whether a row shows each of its K views once in K epochs, in an order of its own."""
        return self.version > 2

    @property
    def calibration(self) -> str:
        """Purpose word of the order of rows that calibrate an untrained student."""
        return "order" if self.version < 2 else "calibration"

    @property
    def projector_seed(self) -> int:
        """Seed of the projectors' initial weights."""
        return self.seed if self.version < 2 else draw_seed("projector", self.seed)

    @property
    def batch_norm_over_all(self) -> bool:
        """Whether a student's own batch normalisation is over the rows of all processes. A run may then be continued in
        another number of them.
        """
        return self.version > 3

    @property
    def jitters_in_floats(self) -> bool:
        """Whether augmentation changes colours in float32, not in whole numbers."""
        return self.version < 5

    def dropout_seed(self, rank: int, step: int = 0) -> int:
        """Seed of the draws within a step (dropout, drop-path) in the process of that rank, for a run that begins, or
        that is continued after `step` steps in another number of processes.
        """
        if self.version < 2:
            return self.seed + rank
        return draw_seed("dropout", self.seed, rank, *([step] if step else []))
