"""Damage for fuzz tests: the same seed gives the same damage; and what hostile files hold."""

import random
from collections.abc import Callable
from pathlib import Path

import h5py

LARGE = (2**15, 2**31 - 1, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
"""What sizes and counts overflow at."""


def _cut(data: bytearray, rng: random.Random) -> bytearray:
    return data[: rng.randrange(len(data))]


def _flip(data: bytearray, rng: random.Random) -> bytearray:
    for _ in range(rng.choice((1, 1, 4, 32))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def _blank(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    stop = min(start + rng.choice((1, 8, 64, 512)), len(data))
    data[start:stop] = bytes([rng.choice((0, 255))]) * (stop - start)
    return data


def _enlarge(data: bytearray, rng: random.Random) -> bytearray:
    size = rng.choice((2, 4, 8))
    start = rng.randrange(max(len(data) - size, 1))
    value = rng.choice(LARGE) & (256**size - 1)
    data[start : start + size] = value.to_bytes(size, rng.choice(("little", "big")))
    return data


def _insert(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 7, 100)))
    return data


def _repeat(data: bytearray, rng: random.Random) -> bytearray:
    start = rng.randrange(len(data))
    part = data[start : start + rng.randrange(1, 200)]
    data[start:start] = part * rng.choice((1, 3))
    return data


DAMAGES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (
    _cut,
    _flip,
    _flip,
    _blank,
    _enlarge,
    _enlarge,
    _insert,
    _repeat,
)


def damaged(data: bytes, seed: int) -> bytes:
    """`data` with one damage, or two; near its start more often than elsewhere, where headers are."""
    rng = random.Random(seed)
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 2))):
        if not found:
            break
        head = min(len(found), 1024)
        if rng.random() < 0.5:
            found = DAMAGES[rng.randrange(1, len(DAMAGES))](found[:head], rng) + found[head:]
        else:
            found = rng.choice(DAMAGES)(found, rng)
    return bytes(found)


class Evil:
    """Touches `path` when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def claim_32_tib(f: h5py.File, name: str) -> None:
    """A dataset of 8 columns that takes no room and says that it has 32 TiB."""
    f.create_dataset(name, (2**40, 8), "float32", chunks=(1024, 8))
