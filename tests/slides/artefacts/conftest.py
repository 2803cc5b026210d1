"""A section with the grain of tissue, on which the tests of artefacts draw."""

import numpy as np
import pytest
from support.artefacts import Section, stained_section


@pytest.fixture(scope="module")
def section() -> Section:
    """A section of haematoxylin and eosin of 2.4 by 3.2 mm, on white glass, at 8 um/px."""
    return stained_section(np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]]))


@pytest.fixture(scope="module")
def brown_section() -> Section:
    """The same of haematoxylin and DAB."""
    return stained_section(np.array([[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]]))
