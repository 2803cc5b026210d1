"""Fixtures of the slide benchmark."""

import pytest


@pytest.fixture(autouse=True)
def few_patches_are_quick(one_thread: None) -> None:
    """Tiny steps are faster in one thread, whatever the machine."""
