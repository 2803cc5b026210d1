"""Pictures that tests of tissue and of glass share."""

import numpy as np
import pytest
import support.slides as sf
from PIL import Image


@pytest.fixture(scope="module")
def stained() -> np.ndarray:
    """A slide of tissue at 8 um/px, with pale stroma beside it and grain everywhere."""
    image = np.asarray(Image.fromarray(sf.make_pixels("tissue", 4000, 3200, seed=3, mpp=0.5)).reduce(16)).copy()
    image[10:40, 10:50] = (236, 212, 226)  # saturation 0.10
    grain = np.random.default_rng(0).integers(-1, 2, (*image.shape[:2], 1))
    return (image + grain).clip(0, 255).astype(np.uint8)
