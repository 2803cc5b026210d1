"""Draw the cases that a sweep tests on: so many of each class, all sets of cases that give them equally likely.

A case may have patches of several classes, and all of it is tested on or none of it is. Of Tolkach-ESCA, where most
cases have several, PathoROB lists all sets of cases with the patches of exactly two cases of each class, and draws one.
The same draw is made here without the list, by counting such sets: how many there are among the last cases for each
number of cases that the classes still lack. Pure.
"""

import random
from collections.abc import Mapping, Sequence

State = tuple[int, ...]
"""How many cases each class still lacks, and last how many cases may still be taken."""


class CaseDraw:
    """Uniform draws of a set of cases with exactly `times` cases of each class.

    Attributes:
        num_sets: how many such sets there are; 0 if none.
    """

    def __init__(self, classes_of: Mapping[str, Sequence[int]], num_classes: int, times: int, most: int | None) -> None:
        """Count the sets.

        Args:
            classes_of: the classes of each case, by its name.
            most: cases in a set, at most; `None`: any number.
        """
        self._names = sorted(classes_of)
        self._steps = [_step(classes_of[name], num_classes) for name in self._names]
        self._start: State = (*[times] * num_classes, len(self._names) if most is None else most)
        self._counts = self._count()
        self.num_sets = self._counts[0].get(self._start, 0)

    def draw(self, generator: random.Random) -> frozenset[str]:
        """One of the sets, which there must be."""
        assert self.num_sets, "there is no such set of cases"
        place, state, chosen = generator.randrange(self.num_sets), self._start, []
        for index, (name, step) in enumerate(zip(self._names, self._steps, strict=True)):
            without = self._counts[index + 1].get(state, 0)
            if place >= without:
                place -= without
                state = _after(state, step)
                chosen.append(name)
        return frozenset(chosen)

    def _count(self) -> list[dict[State, int]]:
        """For each case, how many sets of it and the later ones fill what a state lacks; only states that come up."""
        reached: list[set[State]] = [{self._start}]
        for step in self._steps:
            taken = {_after(state, step) for state in reached[-1]}
            reached.append(reached[-1] | {state for state in taken if min(state) >= 0})
        counts = [{state: int(not any(state[:-1])) for state in reached[-1]}]
        for step, states in zip(reversed(self._steps), reversed(reached[:-1]), strict=True):
            later = counts[-1]
            counts.append({state: later.get(state, 0) + later.get(_after(state, step), 0) for state in states})
        return counts[::-1]


def _step(classes: Sequence[int], num_classes: int) -> State:
    """What taking a case of these classes takes off a state."""
    return (*(int(label in classes) for label in range(num_classes)), 1)


def _after(state: State, step: State) -> State:
    """The state once the case is taken; below 0 where it is one too many."""
    return tuple(have - take for have, take in zip(state, step, strict=True))
