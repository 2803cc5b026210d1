"""Named sets of probe settings, with their sources: G2L's own, and those that others publish numbers of.

Numbers of two protocols are not compared: the same embeddings get other scores under each. A protocol sets the linear
probe. kNN, few-shot and attention MIL are G2L's under every one: kaiko-eva publishes no kNN, and the neighbours that
PathoROB votes by are its robustness index's, not a classifier's. Pure.
"""

from dataclasses import dataclass

import numpy as np

from pipeline.base.errors import ConfigError
from pipeline.evaluate.probes.probe_choice import SCORE_WORDS, STRENGTHS, ProbeProtocol, ProtocolName, ScoreName

PATHOROB_STRENGTHS = tuple(float(10**power) for power in np.linspace(-8, 4, 15))
"""PathoROB, `pathorob/apd/train_model.py`."""


@dataclass(frozen=True)
class NamedProtocol:
    """What a protocol says, in words for the report and the guide.

    Attributes:
        linear: how the linear probe is fitted, as the end of "The linear probe is ...".
        source: where the settings come from.
        differs: what is not as published, or could not be established; "" for nothing.
    """

    linear: str
    source: str
    differs: str = ""


PROTOCOLS: dict[ProtocolName, NamedProtocol] = {
    "g2l": NamedProtocol(
        "a logistic regression on standardised features that counts all classes the same, its C chosen by the reported "
        "score within the training part",
        "docs/decisions/0033 and 0034",
    ),
    "plain": NamedProtocol(
        "a logistic regression on standardised features that counts classes by their frequency, its C chosen by log "
        "likelihood within the training part",
        "G2L before 0.2",
    ),
    "eva": NamedProtocol(
        "one linear layer on the features as they are, trained by AdamW (learning rate 3e-4, decay 0.01, cross "
        "entropy) with batches of 256 for at most 12,500 steps; the checkpoint of the best validation accuracy counts, "
        "and training stops after a fifth of its epochs without a better one; scores are means of five runs",
        "kaiko-eva, docs/leaderboards.md and configs/vision/pathology/offline/classification/breakhis.yaml",
        "eva scores the val rows of a set that has no test split, by which it has chosen its checkpoint: here it "
        "chooses by rows of the training part. Its table gives decay 0, but the optimiser's default of 0.01 is what "
        "its configuration runs.",
    ),
    "pathorob": NamedProtocol(
        "scikit-learn's logistic regression (L-BFGS, at most 100 iterations) on the features as they are, its C of 15 "
        "from 1e-8 to 1e4 chosen by the balanced accuracy on validation rows, which it is not fitted on",
        "PathoROB, pathorob/apd/train_model.py",
        "PathoROB draws its train, validation and test slides by set; here they are the folds or the given split.",
    ),
}
"""All protocols, by the name that `--protocol` takes."""


def probe_protocol(name: str, score: ScoreName, fixed: float | None) -> ProbeProtocol:
    """The protocol called `name`, at the `fixed` strength if there is one; g2l chooses C by `score`, the reported one.

    Raises:
        ConfigError: the protocol fixes how its regularisation is chosen, and a strength is given.
    """
    if name in ("eva", "pathorob") and fixed is not None:
        raise ConfigError(
            f"--probe-c {fixed:g}: the protocol {name} says how the linear probe is regularised; leave out "
            "--probe-c, or take --protocol g2l"
        )
    strengths = STRENGTHS if fixed is None else (fixed,)
    if name == "eva":
        return ProbeProtocol((), "balanced_accuracy", name="eva")
    if name == "pathorob":
        return ProbeProtocol(PATHOROB_STRENGTHS, "balanced_accuracy", name="pathorob")
    if name == "plain":
        return ProbeProtocol(strengths, "log_loss", is_balanced=False, name="plain")
    return ProbeProtocol(strengths, score)


def linear_in_words(protocol: ProbeProtocol) -> str:
    """What the linear probe is, as the end of "The linear probe is"."""
    if protocol.is_published:
        return PROTOCOLS[protocol.name].linear
    weighs = "that counts all classes the same" if protocol.is_balanced else "that counts classes by their frequency"
    text = f"a logistic regression on standardised features {weighs}"
    if protocol.is_fixed:
        return f"{text}, with a fixed C of {protocol.strengths[0]:g}"
    return f"{text}, its C chosen by {SCORE_WORDS[protocol.score]} within the training part"


def protocol_in_words(protocol: ProbeProtocol) -> str:
    """The sentences of a section's head that say which protocol its probes follow."""
    named = PROTOCOLS[protocol.name]
    text = f"Protocol of the linear probe: {protocol.name} ({named.source})."
    last = "Numbers of two protocols are not compared."
    return " ".join(filter(None, [text, named.differs, last]))
