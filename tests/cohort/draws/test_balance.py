"""Water filling against a plain one that gives one patch at a time; independent of order."""

import random

import pytest

from pipeline.cohort.draws.balance import Candidates, balanced_counts, fill


def one_by_one(room: dict[str, int], total: int) -> list[int]:
    """Sorted numbers of a fill that gives a patch at a time to who has least."""
    counts = dict.fromkeys(room, 0)
    for _ in range(min(total, sum(room.values()))):
        free = [name for name in room if counts[name] < room[name]]
        counts[min(free, key=counts.__getitem__)] += 1
    return sorted(counts.values())


@pytest.mark.parametrize("seed", range(30))
def test_it_is_the_fill_of_one_patch_at_a_time(seed: int) -> None:
    rng = random.Random(seed)
    room = {f"n{i}": rng.choice([0, rng.randrange(5), rng.randrange(60)]) for i in range(rng.randrange(1, 9))}
    total = rng.randrange(1 + int(1.3 * sum(room.values())))
    counts = fill(room, total, seed)
    assert sum(counts.values()) == min(total, sum(room.values()))
    assert all(counts[name] <= room[name] for name in room)
    assert sorted(counts.values()) == one_by_one(room, total)
    assert fill(dict(reversed(room.items())), total, seed) == counts


def test_what_does_not_divide_is_drawn_by_name_and_seed() -> None:
    room = dict.fromkeys("abcdefgh", 10)
    assert len({tuple(sorted(fill(room, 3, seed).items())) for seed in range(20)}) > 5
    assert fill({}, 3, 0) == {}
    with pytest.raises(ValueError, match="negative"):
        fill({"a": -1}, 3, 0)


def test_groups_are_equal_as_far_as_they_can() -> None:
    slides = [Candidates(f"big {i}", "big", 100) for i in range(8)]
    slides += [Candidates("small", "small", 30), Candidates("middle", "middle", 300)]
    counts = balanced_counts(slides, 400, 0)
    assert sum(counts.values()) == 400
    assert counts["small"] == 30
    assert counts["middle"] == 185
    assert sorted(counts[f"big {i}"] for i in range(8)) == [23] * 7 + [24]
    assert balanced_counts(slides[::-1], 400, 0) == counts
