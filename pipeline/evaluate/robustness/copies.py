"""Count the patches of a robustness set that are the same picture on several slides.

Two patches are copies if their RGB pixels are the same, however the files are called or compressed. Left out: patches
of one colour throughout, which are alike by nature.
"""

import numpy as np

from pipeline.base.console import counted
from pipeline.evaluate.images import ScannedImages
from pipeline.evaluate.robustness.data import RobustnessSet


def note_on_copies(robustness_set: RobustnessSet, scanned: ScannedImages) -> list[str]:
    """A note if the index has copies of a picture on several slides: each is nearest to its copy, whatever the model.
    Else none. The set's images are the usable ones of `scanned`.
    """
    rows = robustness_set.index
    if rows is None:
        return []
    usable = scanned.usable()
    images = usable[rows.images].tolist()
    pictures = np.unique([scanned.pixels[image] for image in images], return_inverse=True)[1]
    slides = np.unique(rows.slides, return_inverse=True)[1]
    is_plain = np.array([image in scanned.plain for image in images])
    of_slides = np.unique(np.stack([pictures, slides])[:, ~is_plain], axis=1)[0]
    several, num_slides = np.unique(of_slides, return_counts=True)
    count = len(np.unique(rows.images[np.isin(pictures, several[num_slides > 1])]))
    if not count:
        return []
    return [
        f"{counted(count, 'patch is a copy', 'patches are copies')}, pixel for pixel, of one on another slide. A "
        "copy is the nearest neighbour of its like for every model, which moves the index; take one of each pair out."
    ]
