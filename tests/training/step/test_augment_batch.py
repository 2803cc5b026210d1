"""A batch augmented on a device has, to the bit, the pixels that the reading threads make a patch at a time."""

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from support.stores import dropping_cnn, make_patches, make_store, run_files, train_config

from pipeline.base.draws import RunDraws
from pipeline.training.augment import Augmentation, augment
from pipeline.training.rows.order import row_keys
from pipeline.training.rows.reading import StoredRows
from pipeline.training.step import augment_batch as module
from pipeline.training.step.augment_batch import ROWS_AT_ONCE, BatchAugmentation, augment_batch, augments_on
from stages import train_student as stage
from stages.training import run as opening

AUGMENTATIONS: tuple[Augmentation, ...] = get_args(Augmentation)
CORNERS = [sum(0xFFFF << 16 * (bit + 1) for bit in range(3) if which >> bit & 1) for which in range(8)]
"""Keys of the smallest and the largest change of brightness, contrast and saturation, in all ways."""
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]


def a_patch_at_a_time(
    patches: NDArray[np.uint8], keys: NDArray[np.uint64], augmentation: Augmentation
) -> NDArray[np.uint8]:
    """As the reading threads do it."""
    expected = patches.copy()
    for patch, key in zip(expected, keys.tolist(), strict=True):
        augment(patch, key, augmentation)
    return expected


@pytest.mark.parametrize("device", DEVICES)
@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(1, 40),
    seed=st.integers(0, 2**31),
    keys=st.lists(st.integers(0, 2**64 - 1) | st.sampled_from(CORNERS), min_size=1, max_size=5),
    kind=st.integers(0, 2),
    augmentation=st.sampled_from(AUGMENTATIONS),
)
def test_pixels_are_those_of_a_patch_at_a_time(
    device: str, side: int, seed: int, keys: list[int], kind: int, augmentation: Augmentation
) -> None:
    noise = np.random.default_rng(seed).integers(0, 256, (len(keys), side, side, 3), np.uint8)
    patches = (make_patches(len(keys), side, seed), noise, noise // 128 * np.uint8(255))[kind]
    given_keys = np.array(keys, np.uint64) ^ np.arange(len(keys), dtype=np.uint64)
    pixels = torch.from_numpy(patches.copy()).to(device)
    out = augment_batch(pixels, given_keys, augmentation)
    assert np.array_equal(out.cpu().numpy(), a_patch_at_a_time(patches, given_keys, augmentation))
    assert np.array_equal(pixels.cpu().numpy(), patches), "what was copied is another's"
    assert out.data_ptr() != pixels.data_ptr()


@pytest.mark.parametrize("device", DEVICES)
def test_so_are_those_of_whole_batches(device: str) -> None:
    """Of more rows than are made together, with every turn; nothing hangs on a patch's place or neighbours."""
    num_rows = ROWS_AT_ONCE * 2 + 5
    patches = np.random.default_rng(1).integers(0, 256, (num_rows, 56, 56, 3), np.uint8)
    keys = row_keys(np.arange(num_rows), 7, 3, "augment")
    assert len(set((keys & np.uint64(7)).tolist())) == 8
    out = augment_batch(torch.from_numpy(patches).to(device), keys, "flips+jitter").cpu().numpy()
    assert np.array_equal(out, a_patch_at_a_time(patches, keys, "flips+jitter"))
    backwards = torch.from_numpy(patches[::-1].copy()).to(device)
    assert np.array_equal(augment_batch(backwards, keys[::-1], "flips+jitter").cpu().numpy()[::-1], out)


@pytest.mark.parametrize("device", DEVICES)
def test_so_are_those_of_whole_patches(device: str) -> None:
    """Black, white and halves of it, with the strongest changes."""
    patches = np.random.default_rng(2).integers(0, 256, (8, 224, 224, 3), np.uint8)
    patches[1], patches[2], patches[3, :, :100] = 0, 255, 255
    keys = np.array(CORNERS, np.uint64) ^ np.arange(8, dtype=np.uint64)
    out = augment_batch(torch.from_numpy(patches).to(device), keys, "flips+jitter").cpu().numpy()
    assert np.array_equal(out, a_patch_at_a_time(patches, keys, "flips+jitter"))


def test_it_is_for_gpus_and_for_runs_that_count_in_whole_numbers() -> None:
    cuda, cpu, mps = (torch.device(name) for name in ("cuda", "cpu", "mps"))
    assert augments_on(cuda, RunDraws(0))
    assert not augments_on(cuda, RunDraws(0, 4))
    assert not augments_on(cpu, RunDraws(0))
    assert not augments_on(mps, RunDraws(0)), "it has no float64"


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_an_epochs_batches_are_those_of_its_reader(tmp_path: Path, augmentation: Augmentation) -> None:
    store = make_store(tmp_path / "s.zarr", train=(24,), rows_per_shard=8)
    rows, order, seen = StoredRows([store.first], tell=print), [5, 20, 3, 11], np.empty((4, 32, 32, 3), np.uint8)
    read = rows.reader(RunDraws(1), 2, "none").read_some(order, plain := np.empty_like(seen))
    expected = rows.reader(RunDraws(1), 2, augmentation).read_some(order, seen)
    assert np.array_equal(read, expected)
    out = BatchAugmentation(RunDraws(1), 2, augmentation)(order, torch.from_numpy(plain))
    assert np.array_equal(out.numpy(), seen)
    other = BatchAugmentation(RunDraws(1), 3, augmentation)(order, torch.from_numpy(plain))
    assert np.array_equal(other.numpy(), seen) == (augmentation == "none")


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_a_run_is_the_same_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, augmentation: Augmentation
) -> None:
    """Estimate, training and checkpoints, on the device or in the threads."""
    store = make_store(tmp_path / "store.zarr")
    config = train_config(dropping_cnn(tmp_path / "cnn"), epochs=2, augment=augmentation)
    stage.train_student(store, tmp_path / "threads", config)
    batches: list[int] = []

    def counted(pixels: Any, *others: Any) -> Any:
        batches.append(len(pixels))
        return augment_batch(pixels, *others)

    monkeypatch.setattr(opening, "augments_on", lambda *_: True)
    monkeypatch.setattr(module, "augment_batch", counted)
    stage.train_student(store, tmp_path / "device", config)
    assert bool(batches) == (augmentation != "none")
    assert run_files(tmp_path / "device") == run_files(tmp_path / "threads")
