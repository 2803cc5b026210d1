"""A store as data for any training loop: a map-style dataset, an order that reads it by shard, and a stream.

    data = g2l.open_store("store.zarr", split="train")
    DataLoader(data, batch_size=64, sampler=data.order(seed=0), num_workers=4)      each row once, shard after shard
    DataLoader(data.stream(seed=0), batch_size=64, num_workers=4)                   the same as an iterable dataset

A dataset is a path and row numbers: it is pickled in no time, and each process that reads opens the store for itself,
whether it was forked or spawned. Left out: stores in buckets, which `g2l train-student` reads; copy one first.
"""

import operator
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from g2l.guest import given_path, tell
from pipeline.base.errors import ConfigError, StoreError, did_you_mean
from pipeline.cohort.plan import Plan
from pipeline.disk.objects.urls import require_local
from pipeline.sampling import SPLIT_NAMES, RowNumbers
from pipeline.store.store import Store, StoredTeacher
from pipeline.store.teachers import choose_teachers
from pipeline.training.rows.order import row_keys, row_numbers
from pipeline.training.rows.reading import StoredRows

SplitName = Literal["train", "val"]
FLAG, ARGUMENT = "--slides-root", "slides_root="
"""How the commands and `open_store` call the folder of the slides."""
SHARDS_MIXED = 8
"""Shards whose rows are shuffled together. Our choice: with shards of 2,048 rows a batch is drawn from 16,384."""


def _whole_number(name: str, value: Any) -> int:
    """A number that a caller gave, also one of NumPy's or torch's.

    Raises:
        ConfigError: it is no whole number.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r}: give a whole number") from None


def _require_choices(split: Any, transform: Any) -> None:
    """Check what a caller chose of a store, as far as that is known without it.

    Raises:
        ConfigError: there is no such split, or the transform is no function.
    """
    if split is not None and (not isinstance(split, str) or split not in SPLIT_NAMES):
        hint = did_you_mean(str(split), SPLIT_NAMES)
        raise ConfigError(f"split={split!r}: the splits of a store are {' and '.join(SPLIT_NAMES)}{hint}")
    if transform is not None and not callable(transform):
        raise ConfigError(f"transform={transform!r}: give a function of the pixels, a uint8 tensor (3, P, P)")


def _tell_in_words(text: str) -> None:
    """`tell`, with the argument of `open_store` in place of the command's option."""
    tell(text.replace(FLAG, ARGUMENT))


@contextmanager
def _words_of_the_library() -> Iterator[None]:
    """Errors of a store name the argument of `open_store`, not the command's option."""
    try:
        yield
    except StoreError as error:
        if FLAG not in str(error):
            raise
        raise StoreError(str(error).replace(FLAG, ARGUMENT)) from None


def _index(value: Any) -> int:
    """The index of a row.

    Raises:
        ConfigError: it is none, such as a slice.
    """
    try:
        return operator.index(value)
    except TypeError:
        raise ConfigError(
            f"data[{value!r}]: rows are read by whole numbers, one at a time. For some of them take "
            "torch.utils.data.Subset(data, range(2, 4))"
        ) from None


class StoreRow(TypedDict):
    """One row of a store.

    Attributes:
        pixels: uint8 (3, P, P), RGB, as the teacher saw them; or what the `transform` made of that.
        embedding: float32 (D,), the teacher's.
        slide: the slide's id.
        case: the case's id; that of the slide where the case is not known.
        coords: int64 (2,), (x, y) of the top left corner in pixels of level 0.
        split: "train" or "val".
        row: the row's number in the store.
    """

    pixels: Any
    embedding: Tensor
    slide: str
    case: str
    coords: Tensor
    split: str
    row: int


def open_store(
    path: str | os.PathLike[str],
    *,
    split: SplitName | None = None,
    teacher: str | None = None,
    view: int = 0,
    transform: Callable[[Tensor], Any] | None = None,
    slides_root: str | os.PathLike[str] | None = None,
) -> "StoreDataset":
    """Open a finished store as a map-style dataset of the rows that have an embedding.

    Args:
        path: folder of the store.
        split: "train" or "val", the held-out rows; `None` for both.
        teacher: whose embeddings, if the store has those of several.
        view: which view of the patches: 0 is the patch itself; others are there if stage one was asked for `--views`.
        transform: applied to the pixels, a uint8 tensor (3, P, P). It is sent to workers: it must be picklable where
            these are spawned.
        slides_root: where the slides are now, for a store without pixels.

    Raises:
        G2LError: no store, an unfinished or damaged one, no such teacher, split or view.
    """
    return StoreDataset(path, split=split, teacher=teacher, view=view, transform=transform, slides_root=slides_root)


class StoreDataset(Dataset[StoreRow]):
    """The rows of a store: see `open_store`. Row numbers are ascending; `data[i]` is row `data.rows[i]`.

    Attributes:
        path: folder of the store.
        teacher: name of the teacher.
        rows: numbers of the rows in the store, (N,), ascending.
        width: dimension D of the embeddings.
        patch_px: side P of a patch.
        rows_per_shard: rows that lie in one file.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        split: SplitName | None,
        teacher: str | None,
        view: int,
        transform: Callable[[Tensor], Any] | None,
        slides_root: str | os.PathLike[str] | None,
    ) -> None:
        place = given_path(path)
        require_local("open_store", place)
        self.path = place.expanduser().absolute()
        self.view, self.transform = _whole_number("view", view), transform
        self.slides_root = None if slides_root is None else given_path(slides_root).expanduser().absolute()
        _require_choices(split, transform)
        store = Store(self.path)
        names = list(store.teachers)
        if teacher is None and len(names) > 1:
            raise ConfigError(f"{store.place} has embeddings of {', '.join(names)}: say whose, as teacher={names[0]!r}")
        if teacher is not None and teacher not in names:
            hint = did_you_mean(str(teacher), names)
            raise ConfigError(f"teacher={teacher!r}: {store.place} has embeddings of {', '.join(names)}{hint}")
        chosen = choose_teachers(store, None if teacher is None else [teacher], None).first
        views = chosen.views_at_hand.count
        if not 0 <= view < views:
            raise ConfigError(f"view={view}: {chosen.place} has views 0 to {views - 1} of each patch")
        self.teacher, self.width = chosen.name, chosen.width
        self.patch_px, self.rows_per_shard = chosen.patch_px, chosen.rows_per_shard
        wanted = np.zeros(chosen.num_rows, bool)
        wanted[chosen.ok_rows(None if split is None else SPLIT_NAMES.index(split))] = True
        self.rows: RowNumbers = row_numbers(wanted)
        self._opened: tuple[int, _OpenStore] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        return f"StoreDataset({str(self.path)!r}, teacher={self.teacher!r}, rows={len(self):,}, width={self.width})"

    def __getitem__(self, index: int) -> StoreRow:
        """Read a row.

        Raises:
            IndexError: there are fewer.
            ConfigError: it is no whole number.
            StoreError: pixels or embedding are damaged.
        """
        return self._sample(int(self.rows[_index(index)]))

    def __getitems__(self, indices: Sequence[int]) -> list[StoreRow]:
        """Read the rows of a batch, in the order of the store; returned in the order asked for. DataLoader calls it.

        A row that is asked for several times is read once; each of its samples is its own, and is transformed by
        itself. Transforms are called in the order asked for. Errors are those of `__getitem__`.
        """
        rows = self.rows[[_index(index) for index in indices]]
        here = self._here()
        stored = {int(row): here.read(int(row), self.view) for row in np.unique(rows)}
        return [here.sample(int(row), *stored[int(row)], self.transform) for row in rows]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None}  # another process opens the store itself

    @property
    def plan(self) -> Plan:
        """The plan that the store was made by: slides, cases, coordinates, splits."""
        return self._here().teacher.plan

    def embeddings(self) -> NDArray[np.float32]:
        """The embeddings of all rows, float32 (N, D), in the order of `rows`; read shard by shard, without pixels.

        Raises:
            StoreError: a shard is damaged.
        """
        teacher = self._here().teacher
        values = np.empty((len(self), self.width), np.float32)
        if self.view:
            for place, row in enumerate(self.rows):
                values[place] = teacher.read_embedding(int(row), self.view)
            return values
        shards = self.rows // self.rows_per_shard
        for shard in np.unique(shards):
            chosen = shards == shard
            first = teacher.ledger.rows(int(shard)).start
            values[chosen] = teacher.read_embeddings(int(shard))[self.rows[chosen] - first]
        return values

    def order(self, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1) -> "ShardOrder":
        """A sampler for DataLoader that reads the store by shard: see `ShardOrder`."""
        return ShardOrder(self.rows // self.rows_per_shard, seed=seed, shuffle=shuffle, rank=rank, world=world)

    def stream(self, *, seed: int = 0, shuffle: bool = True, rank: int = 0, world: int = 1) -> "StoreStream":
        """The same rows as an iterable dataset, which DataLoader's workers share: see `StoreStream`."""
        return StoreStream(self, self.order(seed=seed, shuffle=shuffle, rank=rank, world=world))

    def _sample(self, row: int) -> StoreRow:
        here = self._here()
        return here.sample(row, *here.read(row, self.view), self.transform)

    def _here(self) -> "_OpenStore":
        """The store, open in this process."""
        if self._opened is None or self._opened[0] != os.getpid():
            self._opened = os.getpid(), _OpenStore(self.path, self.teacher, self.slides_root, has_views=self.view > 0)
        return self._opened[1]


class _OpenStore:
    """The store of a dataset, open for reading in one process."""

    def __init__(self, path: Path, teacher: str, slides_root: Path | None, *, has_views: bool) -> None:
        self.teacher: StoredTeacher = Store(path).teacher(teacher)
        views = self.teacher.views_at_hand if has_views else None
        with _words_of_the_library():
            self._rows = StoredRows([self.teacher], slides_root=slides_root, views=views, tell=_tell_in_words)
        plan = self.teacher.plan
        self._slides, self._slide_of_row = plan.slides, plan.slide_of_row()
        self._coords, self._split = plan.coords(), plan.split()

    def read(self, row: int, view: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """The pixels (P, P, 3) and the embedding (D,) of a row."""
        side = self.teacher.patch_px
        pixels = np.empty((side, side, 3), np.uint8)
        with _words_of_the_library():
            return pixels, self._rows.read(row, pixels, view)

    def sample(
        self,
        row: int,
        pixels: NDArray[np.uint8],
        embedding: NDArray[np.float32],
        transform: Callable[[Tensor], Any] | None,
    ) -> StoreRow:
        """What a dataset gives of a row that was read, in memory of its own."""
        image = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
        slide = self._slides[self._slide_of_row[row]]
        return {
            "pixels": image if transform is None else transform(image),
            "embedding": torch.from_numpy(embedding.copy()),
            "slide": slide.slide_id,
            "case": slide.case_id,
            "coords": torch.from_numpy(self._coords[row].copy()),
            "split": SPLIT_NAMES[self._split[row]],
            "row": row,
        }


class ShardOrder(Sampler[int]):
    """Indices of a dataset, each once, in an order that reads few shards at a time.

    With `shuffle` the shards come in a random order, and the rows of `SHARDS_MIXED` of them are shuffled together: a
    function of (seed, epoch) alone, the same on every machine. Of several processes each gets a stretch of it, all of
    the same length; at most `world` - 1 rows of an epoch are left out.

    Args:
        shards: the shard of each row, (N,).
        rank: which process this is, as in torch's DistributedSampler.
        world: of how many.

    Raises:
        ConfigError: `world` is below 1, a rank is not below it, or what should be a whole number is none.
    """

    def __init__(self, shards: RowNumbers, *, seed: int, shuffle: bool, rank: int, world: int) -> None:
        for name, value in {"seed": seed, "rank": rank, "world": world}.items():
            _whole_number(name, value)
        if world < 1:
            raise ConfigError(f"world={world}: there is at least one process")
        if not 0 <= rank < world:
            raise ConfigError(f"rank={rank}, world={world}: ranks are 0 to {world - 1}")
        if len(shards) < world:
            raise ConfigError(f"world={world}: there are only {len(shards)} rows")
        self.shards, self.seed, self.shuffle, self.rank, self.world = shards, seed, shuffle, rank, world
        self._epoch = torch.zeros((), dtype=torch.int64)  # in memory that workers that live on see change
        self._epoch.share_memory_()  # type: ignore[no-untyped-call]

    def __len__(self) -> int:
        return len(self.shards) // self.world

    def set_epoch(self, epoch: int) -> None:
        """Shuffle anew for an epoch: call it before each, as of torch's DistributedSampler.

        Raises:
            ConfigError: it is no whole number, or below 0.
        """
        number = _whole_number("epoch", epoch)
        if not 0 <= number < 1 << 63:
            raise ConfigError(f"epoch={number}: epochs are counted from 0 on")
        self._epoch.fill_(number)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices().tolist())

    def indices(self) -> NDArray[np.int64]:
        """The indices of this process in the epoch that is set, int64 (N // world,)."""
        order = np.arange(len(self.shards), dtype=np.int64)
        if self.shuffle:
            epoch = int(self._epoch)
            names, shard_of_index = np.unique(self.shards, return_inverse=True)
            places = row_keys(names, self.seed, epoch, "shards of an order").argsort(kind="stable").argsort()
            mixed = places[shard_of_index] // SHARDS_MIXED
            order = np.lexsort((row_keys(order, self.seed, epoch, "rows of an order"), mixed)).astype(np.int64)
        return order[self.rank * len(self) : (self.rank + 1) * len(self)]


class StoreStream(IterableDataset[StoreRow]):
    """The rows of a dataset in an order, one after the other; each worker of a DataLoader reads a stretch of it.

    It has no length, as DataLoader counts in batches of all workers together: `num_samples` rows come in an epoch.
    """

    def __init__(self, data: StoreDataset, order: ShardOrder) -> None:
        self.data, self.order = data, order

    @property
    def num_samples(self) -> int:
        """Rows of an epoch, over all workers of this process."""
        return len(self.order)

    def set_epoch(self, epoch: int) -> None:
        """As `ShardOrder.set_epoch`; workers that live on (`persistent_workers`) follow."""
        self.order.set_epoch(epoch)

    def __iter__(self) -> Iterator[StoreRow]:
        indices, worker = self.order.indices(), get_worker_info()
        if worker is not None:
            indices = np.array_split(indices, worker.num_workers)[worker.id]
        for index in indices:
            yield self.data[int(index)]
