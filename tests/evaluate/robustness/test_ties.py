"""What the order among equally near patches can change, against every order there is."""

from dataclasses import replace
from itertools import combinations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from support.robustness_patches import Patches, draw

from pipeline.evaluate.directions import grid_directions


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.sampled_from([1, 3, 7]))
def test_what_another_order_of_ties_gives_is_that_of_plain_loops(seed: int, k: int) -> None:
    patches = draw(seed, num_rows=30, num_classes=2, num_centers=2)
    patches = replace(patches, embeddings=np.rint(patches.embeddings[:, :2] / 2) + 0.25)
    found = patches.index(k)
    grid = grid_directions(patches.embeddings)
    for query in range(30):
        others = [i for i in range(30) if patches.slides[i] != patches.slides[query]]
        near = {i: float(grid[query] @ grid[i]) for i in others}
        at_k = sorted(near.values(), reverse=True)[k - 1]
        sure, tied = [i for i in others if near[i] > at_k], [i for i in others if near[i] == at_k]
        counts = []
        for kinds in {tuple(sorted(kind(patches, query, i) for i in chosen))
                      for chosen in combinations(tied, k - len(sure))}:  # fmt: skip
            of_all = [kind(patches, query, i) for i in sure] + list(kinds)
            counts.append((of_all.count("SO"), of_all.count("OS")))
        so, os = zip(*counts, strict=True)
        ties = found.ties
        assert (ties.least_class[query], ties.most_class[query]) == (min(so), max(so))
        assert (ties.least_center[query], ties.most_center[query]) == (min(os), max(os))
        assert {(min(so), max(os)), (max(so), min(os))} <= set(counts)  # by one and the same order
        assert ties.undecided[query] == (len({a / (a + b) for a, b in counts if a + b}) > 1)
        assert ties.tied[query] == (len(counts) > 1)
        assert (found.same_class[query], found.same_center[query]) in counts


def kind(patches: Patches, query: int, other: int) -> str:
    """What a neighbour counts as."""
    same_class = patches.classes[other] == patches.classes[query]
    same_center = patches.centers[other] == patches.centers[query]
    return "neither" if same_class == same_center else "SO" if same_class else "OS"
