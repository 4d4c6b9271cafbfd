"""Operations against torch's own counter, kept bytes against what autograd saves, traffic against the calls made."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sslcore import distributed
from sslcore.backbones import VisionTransformer, resnet18, small_convnet
from sslcore.objectives import barlow_twins, info_nce, nt_xent, sigreg, sinkhorn_knopp, vicreg
from sslcore.training.cost import (
    EXCHANGES,
    Exchange,
    Machine,
    backbone_work,
    objective_exchanges,
    step_memory,
    step_operations,
    vit_work,
    weight_exchanges,
)
from sslcore.training.timing import saved_bytes

VITS = [
    {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 3},
    {"img_size": 64, "patch_size": 4, "embed_dim": 48, "depth": 1, "num_heads": 2, "mlp_ratio": 2.0},
    {"img_size": 32, "patch_size": 16, "embed_dim": 12, "depth": 3, "num_heads": 3, "num_registers": 4, "in_chans": 1},
]
NETS = {
    **{f"vit {row}": (functools.partial(VisionTransformer, **vit), vit["img_size"]) for row, vit in enumerate(VITS)},
    "convnet": (functools.partial(small_convnet, 3, (4, 8)), 24),
    "resnet18": (functools.partial(resnet18, 3, True, 8), 32),
    "resnet18, large stem": (functools.partial(resnet18, 1, False, 8), 64),
}


def batch(net: nn.Module, size: int, images: int = 4) -> torch.Tensor:
    return torch.rand(images, net.in_chans, size, size)


@pytest.mark.parametrize("name", NETS)
def test_operations_are_those_of_torch_s_counter(name: str):
    net, size = NETS[name][0](), NETS[name][1]
    work = backbone_work(net, size)
    with sdpa_kernel(SDPBackend.MATH):  # the counter does not know the CPU's fused attention
        with FlopCounterMode(display=False) as forward:
            out = net(batch(net, size)).cls_token.sum()
        with FlopCounterMode(display=False) as backward:
            out.backward()
    assert forward.get_total_flops() == 4 * work.forward
    assert backward.get_total_flops() == 4 * work.backward


def test_hidden_patches_cost_nothing():
    net = VisionTransformer(**VITS[1])
    ids = torch.arange(64).expand(4, -1)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        net(batch(net, 64), ids_keep=ids)
    assert counter.get_total_flops() == 4 * vit_work(net, 64, keep=0.25).forward


@pytest.mark.parametrize("name", NETS)
def test_kept_numbers_are_what_autograd_saves(name: str):
    net, size = NETS[name][0](), NETS[name][1]
    images = batch(net, size, 8)
    kept = saved_bytes(lambda: net(images).cls_token, net)
    assert 8 * 4 * backbone_work(net, size).kept == pytest.approx(kept, rel=0.1)


def test_work_of_a_step():
    work = vit_work(VisionTransformer(**VITS[0]), 32)
    assert step_operations(work, 10) == 20 * (work.forward + work.backward)
    assert step_operations(work, 10, views=1, teacher_views=2) == 10 * (3 * work.forward + work.backward)
    net = step_memory(work, 0)
    assert net == 16 * work.weights == step_memory(work, 0, optimizer="sgd", teacher=True)
    assert step_memory(work, 0, ranks=4, fsdp=True) == net / 4 and step_memory(work, 0, ranks=4) == net
    assert step_memory(work, 3, bytes_kept=2) - net == 3 * 2 * 2 * work.kept


def embeddings(rows: int, dim: int) -> list[torch.Tensor]:
    return [torch.randn(rows, dim, requires_grad=True) for _ in range(2)]


def gaussian(a: torch.Tensor, b: torch.Tensor, group) -> torch.Tensor:
    return sigreg(torch.stack([a, b]), group=group)


CALLS: dict[str, Callable] = {
    "nt_xent": nt_xent, "info_nce": info_nce, "barlow_twins": barlow_twins, "vicreg": vicreg, "sigreg": gaussian,
    "sinkhorn_knopp": lambda a, b, group: sinkhorn_knopp(a * 100, group=group),  # a range that takes the general form
}  # fmt: skip


@pytest.fixture(params=[2, 8])
def pretended(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    """A group of many ranks of which only this one exists, and a list of what it sends."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    sent: list[Exchange] = []

    def note(kind: str, place: int) -> None:
        original = getattr(dist, kind)

        def call(*args, **kwargs):
            sent.append(Exchange(kind, args[place].numel()))
            return original(*args, **kwargs)

        monkeypatch.setattr(dist, kind, call)

    for kind, place in (("all_reduce", 0), ("all_gather", 1), ("broadcast", 0)):
        note(kind, place)
    # Shapes are compared by sending objects, which a rank that does not exist cannot answer.
    monkeypatch.setattr(distributed, "values_are_checked", lambda tensor: False)
    dist.init_process_group("fake", rank=0, world_size=request.param, store=FakeStore())
    yield request.param, sent
    dist.destroy_process_group()


@pytest.mark.parametrize("dim", [6, 64], ids=["narrow", "wide"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_traffic_is_that_of_the_calls(pretended, monkeypatch: pytest.MonkeyPatch, name: str, dim: int):
    ranks, sent = pretended
    monkeypatch.setattr("sslcore.kernels.scaling.supports", lambda *_: False)
    loss = CALLS[name](*embeddings(6, dim), group=dist.group.WORLD)
    loss = loss if isinstance(loss, torch.Tensor) else loss.total
    if loss.requires_grad:
        loss.backward()
    assert sorted(sent) == sorted(objective_exchanges(name, 6, dim, ranks))
    assert objective_exchanges(name, 6, dim, 1) == []


def test_bytes_that_reach_a_rank():
    assert Exchange("all_reduce", 100).received(4) == 600  # three quarters, there and back
    assert Exchange("all_gather", 100).received(4) == 1200
    assert Exchange("reduce_scatter", 100).received(4) == 300
    assert Exchange("broadcast", 100).received(4) == 400 and Exchange("broadcast", 100).received(1) == 0
    together = [sum(e.received(4) for e in weight_exchanges(1000, 4, fsdp)) for fsdp in (False, True)]
    assert together == [6000, 9000] and weight_exchanges(1000, 1) == []


def test_machine_is_fitted_through_points():
    machine = Machine.fitted([(1e9, 0.11), (2e9, 0.21), (4e9, 0.41)])
    assert machine.operations == pytest.approx(1e10) and machine.fixed == pytest.approx(0.01)
    assert machine.seconds(3e9) == pytest.approx(0.31)
    assert Machine.fitted([(1e9, 0.1), (2e9, 0.1)]).fixed == pytest.approx(0.1, rel=1e-3)
    bent = Machine.fitted([(1e9, 0.1), (2e9, 0.4)])  # the line would start below zero
    assert bent.fixed == 0 and 1e9 / bent.operations == pytest.approx((10 + 5) / (100 + 25))
    linked = Machine(1e10, link=1e3)
    exchange = [Exchange("all_gather", 100)]
    assert linked.seconds(1e9, exchange, ranks=2) == pytest.approx(0.1 + 0.4)
    assert linked.seconds(1e9, exchange, ranks=2, hidden=1.0) == pytest.approx(0.1)


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="img_size: expected a multiple of patch_size 8, got 20"):
        vit_work(VisionTransformer(**VITS[0]), 20)
    with pytest.raises(ValueError, match="expected convolutions, found none in Identity"):
        backbone_work(nn.Identity(), 8)
    with pytest.raises(ValueError, match="unknown objective 'clip'"):
        objective_exchanges("clip", 1, 1, 2)
    with pytest.raises(ValueError, match="unknown optimizer 'adam'"):
        step_memory(vit_work(VisionTransformer(**VITS[0]), 32), 1, optimizer="adam")
    with pytest.raises(ValueError, match="at least two"):
        Machine.fitted([(1.0, 1.0)])
