"""Slides, their plan, a teacher, a store and a run that many tests share, made once a session: a test that changes one
works on a copy.
"""

import csv
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from support.slides import make_slide

if TYPE_CHECKING:
    from support.warm import WarmCommands

    from pipeline.cohort.plan import Plan
    from pipeline.store.store import Store

# Under `nohup make test &` these are ignored, and children inherit that. With a handler here, which a child does not
# inherit, they have it as in a terminal, and the tests go on whatever the terminal does.
for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, lambda *_: None)

os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads that spin for work slow tiny models where tests share cores
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test may depend on a model hub
# Machines are shared: a slow example is no failure. And the same code gets the same verdict each time: examples are
# drawn by the test's own name; `--hypothesis-profile=random` draws others.
settings.register_profile("g2l", deadline=None, derandomize=True)
settings.register_profile("random", deadline=None)
settings.load_profile("g2l")


gc.disable()  # until all tests are collected: a fifth to a third of that time went into looking for cycles
num_tests = 0
"""Tests that have ended in this process."""
marked: dict[str, set[Path]] = {"slow": set(), "alone": set()}
"""Files in which a mark is written, as far as they have been looked at."""
LONG = (
    "kills/test_fuzz",
    "kills/test_campaign",
    "kills/test_two_at_once",
    "kills/test_train",
    "encoders/test_hub",
    "kills/test_several_teachers",
    "student/test_program",
    "kills/test_extract",
)
"""Files with tests of minutes."""


def pytest_itemcollected(item: pytest.Item) -> None:
    """`make test-slow` collects the files in which a mark of slow tests is written, no others."""
    for name in ("slow", "alone"):
        if item.get_closest_marker(name) and item.path not in marked[name]:
            assert f"mark.{name}" in item.path.read_text(), f"{item.nodeid}: write the mark {name} in its file"
            marked[name].add(item.path)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests of minutes come first in each half of the list: two workers begin there, and neither waits at the end
    for the other's last one.
    """
    long = [item for item in items if item.get_closest_marker("slow") and any(name in item.nodeid for name in LONG)]
    if not long:
        return
    others = [item for item in items if item not in set(long)]
    half = len(others) // 2
    items[:] = long[::2] + others[:half] + long[1::2] + others[half:]


def pytest_collection_finish() -> None:
    """Thousands of tests are millions of objects, among which planning would look for cycles after each slide."""
    gc.collect()
    gc.freeze()
    gc.enable()


def pytest_runtest_logfinish() -> None:
    """So are the packages that tests import as they go: a fifth of the suite's time went into looking at them."""
    global num_tests
    num_tests += 1
    if num_tests % 100 == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """torch computes on one thread: for small matrices, threads cost more than they bring."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def slides_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with four small tissue slides at 0.5 um/px of four cases and two centers, and `manifest.csv`.

    Slides 1 and 3 are pyramids, 2 and 4 have one level. Paths in the manifest are relative to the folder.
    """
    folder = tmp_path_factory.mktemp("slides")
    with open(folder / "manifest.csv", "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["slide_id", "path", "case_id", "center"])
        for i in range(1, 5):
            downsamples = (1, 4) if i % 2 else (1,)
            path = folder / f"slide_{i}.svs"
            make_slide(path, width=1500, height=1200, mpp=0.5, downsamples=downsamples, seed=i)
            writer.writerow([path.stem, path.name, f"case_{i}", "north" if i <= 2 else "south"])
    return folder


@pytest.fixture(scope="session")
def cohort(slides_dir: Path) -> Path:
    """The manifest of `slides_dir`."""
    return slides_dir / "manifest.csv"


@pytest.fixture(scope="session")
def plan(cohort: Path) -> "Plan":
    """The plan of `cohort`: 12 patches of 64 px a slide."""
    from support.plans import make_plan

    return make_plan(cohort)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a tiny teacher's weights."""
    from support.extraction import write_teacher

    return write_teacher(tmp_path_factory.mktemp("teacher") / "teacher.safetensors")


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> "Store":
    """A finished store of 48 rows to train on and 16 held-out ones."""
    from support.stores import make_store

    return make_store(tmp_path_factory.mktemp("store") / "store.zarr")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of `train_once`: a store, a student's start, and a run."""
    from support.training import train_once

    return train_once(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator["WarmCommands"]:
    """The command in forks of one process that has imported all of it."""
    from support.warm import WarmCommands

    with WarmCommands(tmp_path_factory.mktemp("warm") / "logs") as started:
        yield started


@pytest.fixture(scope="session")
def run(trained: Path) -> Path:
    """Its run: of a tiny student of 32 px, with a projector from 32 to 12 dimensions."""
    return trained / "run"
