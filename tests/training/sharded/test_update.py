"""Clipping and AdamW where some parameters are split: in a group of one process they are torch's own.

Of two processes: test_split.py.
"""

from collections.abc import Iterator

import pytest
import torch
from support.sharded import alone_in_a_group
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from pipeline.training.sharded.split import is_split, local
from pipeline.training.sharded.update import ShardedAdamW, clip_over_all


@pytest.fixture
def _group() -> Iterator[None]:
    with alone_in_a_group():
        yield


def some_parameters(*, split: bool) -> list[nn.Parameter]:
    """Two of three are split; each has a gradient."""
    draw = torch.Generator().manual_seed(0)
    parameters = []
    for number in range(3):
        value, gradient = torch.randn(4, 3, generator=draw), torch.randn(4, 3, generator=draw)
        if split and number < 2:
            mesh = init_device_mesh("cpu", (1,))
            value, gradient = (distribute_tensor(each, mesh, [Shard(0)]) for each in (value, gradient))
        parameters.append(nn.Parameter(value))
        parameters[-1].grad = gradient
    return parameters


@pytest.mark.usefixtures("_group")
@pytest.mark.parametrize("most", [0.5, 1e9, float("inf")])
def test_the_norm_is_of_all_gradients(most: float) -> None:
    expected, parameters = some_parameters(split=False), some_parameters(split=True)
    norm = torch.nn.utils.clip_grad_norm_(expected, most)
    assert float(clip_over_all(parameters, most)) == pytest.approx(float(norm), rel=1e-6)
    for a, b in zip(parameters, expected, strict=True):
        assert a.grad is not None
        torch.testing.assert_close(local(a.grad), b.grad)


@pytest.mark.usefixtures("_group")
def test_an_infinite_gradient_shows_in_the_norm() -> None:
    parameters = some_parameters(split=True)
    assert parameters[0].grad is not None
    local(parameters[0].grad)[0, 0] = torch.nan
    assert not torch.isfinite(clip_over_all(parameters, 1.0))


@pytest.mark.usefixtures("_group")
def test_adamw_updates_both_kinds_as_torch_does() -> None:
    expected, parameters = some_parameters(split=False), some_parameters(split=True)
    assert [is_split(parameter) for parameter in parameters] == [True, True, False]
    theirs, ours = torch.optim.AdamW([{"params": expected}], lr=0.1), ShardedAdamW([{"params": parameters}], lr=0.1)
    for _ in range(3):
        theirs.step()
        ours.step()
    for a, b in zip(parameters, expected, strict=True):
        assert torch.equal(local(a.data), b.data)
    assert [len(group["params"]) for group in ours.param_groups] == [3]
    assert ours.state_dict()["state"].keys() == theirs.state_dict()["state"].keys()
