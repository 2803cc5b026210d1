"""Fixtures of the slide benchmark."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def few_patches_are_quick() -> Iterator[None]:
    """Tiny steps are faster in one thread, whatever the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
