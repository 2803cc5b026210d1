"""Patches of a robustness set that are the same picture on several slides: counted, and said.

Two patches are copies if their RGB pixels are the same, however the files are called or compressed. Left out: patches
of one colour throughout, which are alike by nature.
"""

from dataclasses import replace

import numpy as np

from pipeline.base.console import say
from pipeline.evaluate.images import ScannedImages
from pipeline.evaluate.robustness.data import RobustnessSet


def with_note_on_copies(robustness_set: RobustnessSet, scanned: ScannedImages) -> RobustnessSet:
    """The set, whose usable images are `scanned`, with a note if the index has copies of a picture on several slides,
    which is also said to the user: each is nearest to its copy, whatever the model.
    """
    rows = robustness_set.index
    if rows is None:
        return robustness_set
    usable = scanned.usable()
    pixels = np.array([scanned.pixels[usable[i]] for i in rows.images])
    several = {
        picture
        for picture in np.unique(pixels[[usable[i] not in scanned.plain for i in rows.images]]).tolist()
        if len(np.unique(rows.slides[pixels == picture])) > 1
    }
    count = len(np.unique(rows.images[np.isin(pixels, list(several))]))
    if not count:
        return robustness_set
    note = (
        f"{count:,} patches are copies, pixel for pixel, of one on another slide. A copy is the nearest neighbour of "
        "its like for every model, which moves the index; take one of each pair out."
    )
    say(f"warning: {robustness_set.path}: {note}")
    return replace(robustness_set, notes=(*robustness_set.notes, note))
