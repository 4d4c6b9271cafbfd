"""A method with every kind of state, small enough to train in milliseconds."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslcore.backbones import VisionTransformer
from sslcore.methods import Method, MoCo


class Terms(NamedTuple):
    total: Tensor
    pull: Tensor
    push: Tensor


class Line(Method):
    """Fits a line through noise; has two loss terms, a buffer, and a switch that makes its loss NaN at a step."""

    def __init__(self, bad_step: int | None = None, width: int = 3) -> None:
        backbone = nn.Linear(3 * 4 * 4, width)
        backbone.embed_dim, backbone.patch_size, backbone.num_prefix_tokens = width, 4, 0
        super().__init__(backbone)
        self.bad_step = bad_step
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> Tensor:
        images = batch["images"].float() / 255
        return images + 0.1 * torch.rand(images.shape, generator=generator, device=images.device)

    def loss(self, views: Tensor) -> Terms:
        out = self.backbone(views.flatten(1))
        pull, push = (out - 1).square().mean(), 0.1 * out.abs().mean()
        if self.training:
            self.calls.add_(1)
        if self.bad_step is not None:
            pull = pull / (self.calls != self.bad_step + 1)
        return Terms(pull + push, pull, push)


def pixels(count: int = 20, side: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)


def moco(seed: int = 0, **settings: Any) -> MoCo:
    """Queue, moving average, momentum, stochastic depth: all that a checkpoint must bring back."""
    torch.manual_seed(seed)
    net = VisionTransformer(8, 4, embed_dim=12, depth=2, num_heads=2, drop_path=0.3)
    return MoCo(net, projector_dims=(8, 8), queue_size=20, momentum=0.9, **settings)


def line(seed: int = 0, **settings: Any) -> Line:
    torch.manual_seed(seed)
    return Line(**settings)


def differing(first: nn.Module, second: nn.Module) -> list[str]:
    """Names of the entries of two state dicts that are not bitwise equal."""
    a, b = first.state_dict(), second.state_dict()
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]
