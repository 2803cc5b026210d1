"""The processes of a launch that live now agree on a name for all that they write into the launcher's store.

`torchrun --max-restarts` replaces processes and keeps its store, with what the dead ones wrote. A process group looks
in it for the addresses of the others; that of a dead one leads nowhere, or torch waits at it for half an hour. Which it
finds is chance. So a group is joined only when all have come to the same start of the first process, and its keys have
a name that no group had before. TORCHELASTIC_RESTART_COUNT is no such name: each node counts its own failures.

    rank/R    how often process R was started
    came/L/R  process R has come to the L-th start of the first one: how often R was started by then
    all/L     these numbers of all processes, once all have come
"""

import time

from pipeline.base.launched.claims import KeyValue, Member, register
from pipeline.base.launched.group import GroupError

LOOK_SECONDS = 0.05
"""Between two looks at who has come."""
MEETING_SECONDS = 1800.0
"""How long to wait for the others. Our choice: as long as torch does, for nodes may start at different times."""


def meet(store: KeyValue, rank: int, world: int) -> str:
    """Wait until this process, of number `rank`, and all others of `world` that live have come. Returns the name that
    they share.

    Raises:
        GroupError: not all came in time.
    """
    me, give_up = register(store, rank), time.monotonic() + MEETING_SECONDS
    while (starts := _starts_of_all(store, me, world)) is None:
        if time.monotonic() > give_up:
            raise GroupError(
                f"process {rank} has waited for the others for {MEETING_SECONDS:.0f} s. Were all nodes started, with "
                "the same --nnodes and --nproc-per-node? What is finished is safe: run the same command again"
            )
        time.sleep(LOOK_SECONDS)
    return "-".join(starts)


def _starts_of_all(store: KeyValue, me: Member, world: int) -> list[str] | None:
    """How often each process was started, by rank; `None` until all have come, this start of this one included."""
    if me.rank == 0:
        came = [f"came/{me.incarnation}/{rank}" for rank in range(1, world)]
        if not store.check(came):
            return None
        starts = [str(me.incarnation), *(store.get(key).decode() for key in came)]
        store.set(f"all/{me.incarnation}", " ".join(starts))
        return starts
    leader = store.add("rank/0", 0)  # it may be replaced while this process waits
    store.set(f"came/{leader}/{me.rank}", str(me.incarnation))
    if not store.check([f"all/{leader}"]):
        return None
    starts = store.get(f"all/{leader}").decode().split()
    return starts if starts[me.rank] == str(me.incarnation) else None  # else they were all before a restart
