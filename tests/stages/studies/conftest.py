"""What the tests of studies share: many short runs."""

from collections.abc import Iterator

import pytest
from support.training import plain_curves

from stages import train_student


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    """Runs whose plots take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_student, "draw_curves", plain_curves)
        yield
