"""What is raced: each case builds the same inputs for every contender and counts what the work needs at the least."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from sslcore import objectives
from tests.benchmarks import pipelines, plain

try:
    from lightly import loss as lightly
except ModuleNotFoundError:  # a GPU machine may lack it; its column stays empty then
    lightly = None

SIZES: dict[str, dict[str, list[tuple[int, ...]]]] = {
    # N, D
    "nt_xent": {"tiny": [(8, 4)], "cpu": [(256, 128), (1024, 128)], "gpu": [(4096, 128), (16384, 128)]},
    # V, N, D, S
    "sigreg": {
        "tiny": [(2, 8, 4, 8)],
        "cpu": [(2, 256, 64, 256), (2, 256, 128, 1024)],
        "gpu": [(8, 1024, 512, 1024), (8, 4096, 512, 4096)],
    },
    "barlow_twins": {"tiny": [(8, 24)], "cpu": [(256, 1024)], "gpu": [(1024, 8192)]},
    "vicreg": {"tiny": [(8, 24)], "cpu": [(256, 1024)], "gpu": [(1024, 8192)]},
    # B, K, S
    "dino_loss": {"tiny": [(2, 16, 4)], "cpu": [(64, 1024, 6), (32, 8192, 10)], "gpu": [(256, 65536, 10)]},
    "swav": {"tiny": [(4, 8, 4)], "cpu": [(128, 512, 8)], "gpu": [(512, 3000, 8)]},
    # B, side
    "views": {"tiny": [(2, 16)], "cpu": [(128, 32)], "gpu": [(1024, 32), (256, 96), (128, 224)]},
    # scenes, side
    "scenes": {"tiny": [(4, 24)], "cpu": [(1024, 64)], "gpu": [(32768, 64)]},
    "SimCLR step": {"tiny": [(4, 16)], "cpu": [(128, 32)], "gpu": [(1024, 32)]},
    # network, B, side, steps
    "fit": {
        "tiny": [("small conv net", 4, 16, 2)],
        "cpu": [("small conv net", 128, 32, 10)],
        "gpu": [("ResNet-18", 512, 32, 100), ("ViT-S/4", 256, 32, 50)],
    },
}


@dataclass
class Case:
    """One row: contenders are calls without arguments that do the same work.

    values: the loss of each contender once, to see that they agree within `tolerance` (relative); None where the
    contenders draw random numbers of their own. leaves: what the gradients go to. num_bytes, num_flops: what has to be
    moved and multiplied at least.
    """

    name: str
    size: str
    contenders: dict[str, Callable[[], object]]
    num_bytes: float
    num_flops: float = 0.0
    tolerance: float | None = 1e-3
    values: dict[str, Callable[[], Tensor]] = field(default_factory=dict)
    leaves: list[Tensor] = field(default_factory=list)


def _objective(
    name: str,
    size: str,
    leaves: list[Tensor],
    losses: dict[str, Callable[..., Tensor]],
    num_bytes: float,
    num_flops: float = 0.0,
    tolerance: float | None = 1e-3,
) -> Case:
    """Forward and backward of each loss on the leaves; on a GPU the plain form is raced compiled as well."""
    if leaves[0].is_cuda:
        losses["torch.compile"] = torch.compile(losses["plain torch"])

    def step(loss: Callable[..., Tensor]) -> None:
        for leaf in leaves:
            leaf.grad = None
        loss(*leaves).backward()

    contenders = {key: partial(step, loss) for key, loss in losses.items()}
    values = {key: partial(loss, *leaves) for key, loss in losses.items() if key != "torch.compile"}
    return Case(name, size, contenders, num_bytes, num_flops, tolerance, values, leaves)


def _leaves(count: int, *shape: int, device: torch.device, scale: float = 1.0) -> list[Tensor]:
    return [(torch.randn(*shape, device=device) * scale).requires_grad_() for _ in range(count)]


def nt_xent_case(device: torch.device, num: int, dim: int) -> Case:
    """Floor: similarities once forward, their product with the embeddings once backward."""
    losses = {
        "ours": lambda a, b: objectives.nt_xent(a, b, 0.5),
        "plain torch": lambda a, b: plain.nt_xent(a, b, 0.5),
    }
    if lightly:
        losses["lightly"] = lightly.NTXentLoss(0.5)
    rows = 2 * num
    leaves = _leaves(2, num, dim, device=device)
    return _objective("nt_xent", f"N={num} D={dim}", leaves, losses, 8 * rows * dim, 4 * rows**2 * dim)


def sigreg_case(device: torch.device, views: int, num: int, dim: int, num_slices: int) -> Case:
    """Floor: projections forward, the gradient's way back through them; cosines and sines are not counted."""
    losses = {
        "ours": lambda z: objectives.sigreg(z, num_slices),
        "plain torch": lambda z: plain.sigreg(z, num_slices),
    }
    if lightly:
        losses["lightly"] = lightly.SIGReg(num_vectors=num_slices).to(device)
    leaves = _leaves(1, views, num, dim, device=device)
    size = f"V={views} N={num} D={dim} S={num_slices}"
    num_bytes = 8 * views * num * dim + 4 * dim * num_slices
    return _objective("sigreg", size, leaves, losses, num_bytes, 4 * views * num * dim * num_slices, None)


def _pair_flops(num: int, dim: int, matrices: int) -> float:
    """Products for an energy and its gradients from the cheaper side: `matrices` Gram matrices, or one D x D."""
    return min(matrices * 4 * num**2 * dim, (2 + 2 * matrices) * num * dim**2)


def barlow_twins_case(device: torch.device, num: int, dim: int) -> Case:
    """Floor: both views in, both gradients out; the cheaper side's products."""
    losses = {
        "ours": lambda a, b: objectives.barlow_twins(a, b, 5e-3).total,
        "plain torch": lambda a, b: plain.barlow_twins(a, b, 5e-3),
    }
    if lightly:
        losses["lightly"] = lightly.BarlowTwinsLoss(5e-3)
    leaves = _leaves(2, num, dim, device=device)
    return _objective("barlow_twins", f"N={num} D={dim}", leaves, losses, 16 * num * dim, _pair_flops(num, dim, 2))


def vicreg_case(device: torch.device, num: int, dim: int) -> Case:
    """Floor: as barlow_twins, with one matrix for each view."""
    losses = {"ours": lambda a, b: objectives.vicreg(a, b).total, "plain torch": plain.vicreg}
    if lightly:
        losses["lightly"] = lightly.VICRegLoss()
    leaves = _leaves(2, num, dim, device=device)
    return _objective("vicreg", f"N={num} D={dim}", leaves, losses, 16 * num * dim, 2 * _pair_flops(num, dim, 1))


def dino_loss_case(device: torch.device, batch: int, classes: int, crops: int) -> Case:
    """Floor: every logit read once, every gradient written once. lightly's also moves its centre, a small part."""
    teacher, center = torch.randn(2, batch, classes, device=device), torch.zeros(classes, device=device)
    losses = {
        "ours": lambda s: objectives.dino_loss(s, teacher, center),
        "plain torch": lambda s: plain.dino(s, teacher, center),
    }
    if lightly:
        reference = lightly.DINOLoss(output_dim=classes, student_temp=0.1, teacher_temp=0.04).to(device)
        losses["lightly"] = lambda s: reference(list(teacher), list(s))
    leaves = _leaves(1, crops, batch, classes, device=device)
    size = f"B={batch} K={classes}, 2+{crops - 2} crops"
    return _objective("dino_loss", size, leaves, losses, 4 * batch * classes * (2 * crops + 2))


def swav_case(device: torch.device, batch: int, classes: int, crops: int) -> Case:
    """Floor: every score read once, every gradient written once."""

    def ours(scores: Tensor) -> Tensor:
        codes = torch.stack([objectives.sinkhorn_knopp(crop) for crop in scores[:2].detach()])
        return objectives.swapped_prediction(scores, codes)

    losses = {"ours": ours, "plain torch": plain.swav}
    if lightly:
        reference = lightly.SwaVLoss()
        losses["lightly"] = lambda s: reference(list(s[:2]), list(s[2:])).squeeze()
    leaves = _leaves(1, crops, batch, classes, device=device, scale=0.2)
    size = f"B={batch} K={classes}, 2+{crops - 2} crops"
    return _objective("swav", size, leaves, losses, 8 * crops * batch * classes)


def views_case(device: torch.device, batch: int, side: int) -> Case:
    """Floor: two views written in float32, the images read twice."""
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    contenders = pipelines.view_makers(images, device)
    return Case("views", f"2 x {batch} at {side} px", contenders, 2 * images.numel() * 5, tolerance=None)


def scenes_case(device: torch.device, num: int, side: int) -> Case:
    """Floor: picture and mask written once, as bytes."""
    contenders = pipelines.scene_makers(num, side, device)
    return Case("scenes", f"{num} at {side} px", contenders, 4 * num * side**2, tolerance=None)


def simclr_step_case(device: torch.device, batch: int, side: int) -> Case:
    """Floor: the network's products, counted by torch. Views, loss, backward and optimiser, as one step of training."""
    images = torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8)
    contenders, num_flops = pipelines.training_steps(images, device)
    size = f"B={batch} at {side} px"
    return Case("SimCLR step", size, contenders, 2 * images.numel() * 5, num_flops, tolerance=None)


def fit_case(device: torch.device, network: str, batch: int, side: int, steps: int) -> Case:
    """Floor: the network's products. The peer is a step without data, views and bookkeeping: it cannot be beaten."""
    images = torch.randint(0, 256, (4 * batch, 3, side, side), dtype=torch.uint8)
    contenders, num_flops = pipelines.fit_and_bare_steps(images, device, network, batch, steps)
    size = f"{network}, {steps} steps, B={batch} at {side} px"
    return Case("fit", size, contenders, 10 * steps * batch * images[0].numel(), num_flops, tolerance=None)


BUILDERS: dict[str, Callable[..., Case]] = {
    "nt_xent": nt_xent_case,
    "sigreg": sigreg_case,
    "barlow_twins": barlow_twins_case,
    "vicreg": vicreg_case,
    "dino_loss": dino_loss_case,
    "swav": swav_case,
    "views": views_case,
    "scenes": scenes_case,
    "SimCLR step": simclr_step_case,
    "fit": fit_case,
}


def cases(scale: str, device: torch.device, names: list[str] | None = None) -> Iterator[Case]:
    """The rows of a scale ("tiny", "cpu", "gpu"), built one after the other so that their memory is not added up."""
    for name in names or BUILDERS:
        for size in SIZES[name][scale]:
            torch.manual_seed(0)
            yield BUILDERS[name](device, *size)
