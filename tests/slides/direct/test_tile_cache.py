"""Decoded tiles: bounded, the oldest go first, one that fails is not kept."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from pipeline.slides.direct.tile_cache import TileCache


def test_the_cache_is_bounded_and_drops_the_oldest() -> None:
    cache, made = TileCache(3 * 100), []

    def tile(name: str) -> NDArray[np.uint8]:
        made.append(name)
        return np.zeros(100, np.uint8)

    for name in "abcabcdadb":  # d drops the oldest, which is a, and a then b
        cache.get(name, lambda name=name: tile(name))  # type: ignore[misc]
    assert "".join(made) == "abcdab"
    assert cache._bytes <= 300


def test_tiles_that_are_over_are_dropped_and_their_bytes_given_back() -> None:
    cache, begun, go_on = TileCache(), threading.Event(), threading.Event()

    def slow() -> NDArray[np.uint8]:
        begun.set()
        go_on.wait(10)
        return np.zeros(7, np.uint8)

    for number in (1, 2):
        cache.get((number, 0), lambda: np.zeros(100, np.uint8))
    with ThreadPoolExecutor(1) as pool:
        being_made = pool.submit(cache.get, (1, 1), slow)
        begun.wait(10)
        cache.forget(lambda key: isinstance(key, tuple) and key[0] == 1)
        go_on.set()
        assert len(being_made.result()) == 7
    assert set(cache._tiles) == {(2, 0), (1, 1)}  # what is being made is somebody's
    assert cache._bytes == 107


def test_a_tile_that_fails_is_not_kept_and_fails_for_all_who_wait() -> None:
    cache, begun, go_on = TileCache(), threading.Event(), threading.Event()

    def fail() -> NDArray[np.uint8]:
        begun.set()
        go_on.wait(10)
        raise ValueError("damaged")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(cache.get, "a", fail)
        begun.wait(10)
        second = pool.submit(cache.get, "a", lambda: np.zeros(1, np.uint8))
        go_on.set()
        assert isinstance(first.exception(), ValueError)
        assert second.exception() is None or isinstance(second.exception(), ValueError)
    assert len(cache.get("a", lambda: np.zeros(1, np.uint8))) == 1


def test_a_tile_larger_than_the_cache_is_given_and_not_kept() -> None:
    cache = TileCache(100)
    cache.get("small", lambda: np.zeros(50, np.uint8))
    assert len(cache.get("large", lambda: np.zeros(101, np.uint8))) == 101
    assert (list(cache._tiles), cache._bytes) == ([], 0)
