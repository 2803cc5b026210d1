"""Keep decoded tiles, so that neighbouring patches decode each once. Pure, but for the memory it holds."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 2**28
"""Most bytes of tiles that are kept: 256 MB. Our choice: patches are read row by row, and three rows of tiles of 256
pixels across a slide of 100,000 pixels are 230 MB.
"""

Tile = NDArray[np.uint8]


class TileCache:
    """Decoded tiles by key; those not asked for the longest go first. Safe to use from many threads.

    A tile that two threads ask for at once is decoded once.

    Args:
        most_bytes: of the tiles that are kept; tiles in use by a reader come on top.
    """

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._tiles: OrderedDict[Hashable, Tile] = OrderedDict()
        self._being_made: dict[Hashable, Future[Tile] | None] = {}
        """The future that other threads wait for, if any do: few tiles are asked for twice at once."""
        self._bytes = 0

    def get(self, key: Hashable, decode: Callable[[], Tile]) -> Tile:
        """The tile of this key, made by `decode` if it is not kept. A tile that fails is not kept: it fails again.

        Raises:
            Exception: whatever `decode` raises, for each thread that waits for the tile.
        """
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
                return tile
            waited_for = None
            if key in self._being_made:
                waited_for = self._being_made[key] = self._being_made[key] or Future()
            else:
                self._being_made[key] = None
        if waited_for is not None:
            return waited_for.result()
        try:
            tile = decode()
        except BaseException as error:
            with self._lock:
                others = self._being_made.pop(key)
            if others is not None:
                others.set_exception(error)
            raise
        with self._lock:
            others = self._being_made.pop(key)
            self._tiles[key] = tile
            self._bytes += tile.nbytes
            while self._bytes > self._most_bytes:
                _, oldest = self._tiles.popitem(last=False)
                self._bytes -= oldest.nbytes
        if others is not None:
            others.set_result(tile)
        return tile

    def forget(self, is_over: Callable[[Hashable], bool]) -> None:
        """Drop the tiles whose key `is_over`, but for those that are being made."""
        with self._lock:
            for key in [key for key in self._tiles if is_over(key)]:
                self._bytes -= self._tiles.pop(key).nbytes
