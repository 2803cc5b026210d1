"""The losses by name. To add one, write a function in its own file and a line here."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LossEntry:
    """A loss that `--loss` can name.

    Attributes:
        function: "module:function", imported when a run needs it, since torch takes seconds to import. It takes the
            projected and the teacher's embeddings, both standardised (B, T), and returns a float32 scalar.
        takes_alpha: whether it takes the keyword `alpha`.
        is_log_of_sum: whether it is the log of a sum over a batch's rows, and so grows with the log of the batch size.
    """

    function: str
    takes_alpha: bool = False
    is_log_of_sum: bool = False


LOSSES: dict[str, LossEntry] = {
    "log-sum": LossEntry("pipeline.loss:log_sum_loss", takes_alpha=True, is_log_of_sum=True),
    "mse": LossEntry("pipeline.loss:mse_loss"),
    "cosine": LossEntry("pipeline.loss:cosine_loss"),
    "l1": LossEntry("pipeline.l1_loss:l1_loss"),
    "smooth-l1": LossEntry("pipeline.smooth_l1_loss:smooth_l1_loss"),
}
"""log-sum is the paper's; the others are for ablation."""
