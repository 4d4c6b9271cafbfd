"""Contenders that start from images: two SimCLR views of each, and a whole training step."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from sslcore.backbones import create_backbone
from sslcore.methods import SimCLR
from sslcore.training.optimizers import make_optimizer
from sslcore.views import simclr_policy

JITTER = (0.8, 0.8, 0.8, 0.2)


def _lightly_views(images: Tensor) -> Callable[[], list[Tensor]]:
    """lightly's transform, image by image with PIL, as its data loader runs it in one worker."""
    from lightly.transforms import SimCLRTransform

    side = images.shape[-1]
    transform = SimCLRTransform(input_size=side, gaussian_blur=0.5 if side >= 40 else 0.0)
    pictures = [to_pil_image(image) for image in images]

    def views() -> list[Tensor]:
        pairs = [transform(picture) for picture in pictures]
        return [torch.stack(view) for view in zip(*pairs, strict=True)]

    return views


def _torchvision_views(images: Tensor) -> Callable[[], list[Tensor]]:
    """torchvision's transforms on tensors, image by image: on a whole batch it would draw one parameter set for all."""
    side = images.shape[-1]
    steps = [
        v2.RandomResizedCrop(side, scale=(0.08, 1.0), antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
        v2.RandomGrayscale(0.2),
    ]
    if side >= 40:
        steps.append(v2.RandomApply([v2.GaussianBlur(side // 10 * 2 + 1, (0.1, 2.0))], p=0.5))
    transform = v2.Compose([*steps, v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.25] * 3)])
    return lambda: [torch.stack([transform(image) for image in images]) for _ in range(2)]


def _kornia_views(images: Tensor) -> Callable[[], list[Tensor]]:
    """kornia on the device, one parameter set an image."""
    from kornia import augmentation as K

    side = images.shape[-1]
    steps = [
        K.RandomResizedCrop((side, side), scale=(0.08, 1.0)),
        K.RandomHorizontalFlip(),
        K.ColorJitter(*JITTER, p=0.8),
        K.RandomGrayscale(p=0.2),
    ]
    if side >= 40:
        steps.append(K.RandomGaussianBlur((side // 10 * 2 + 1,) * 2, (0.1, 2.0), p=0.5))
    transform = nn.Sequential(*steps, K.Normalize(torch.tensor([0.5] * 3), torch.tensor([0.25] * 3)))
    return lambda: [transform(images.float() / 255) for _ in range(2)]


def view_makers(images: Tensor, device: torch.device) -> dict[str, Callable[[], list[Tensor]]]:
    """For each contender a call that makes two views of every uint8 image (B, 3, side, side)."""
    policy, there = simclr_policy(images.shape[-1]), images.to(device)
    makers = {"ours": lambda: [policy(there) for _ in range(2)], "torchvision": _torchvision_views(images)}
    if find_spec("lightly"):
        makers["lightly"] = _lightly_views(images)
    if find_spec("kornia"):
        makers["kornia"] = _kornia_views(there)
    return makers


def training_steps(images: Tensor, device: torch.device) -> tuple[dict[str, Callable[[], object]], float]:
    """For each contender a training step with views, and the operations of the network's forward and backward."""
    side = images.shape[-1]

    def network() -> tuple[SimCLR, torch.optim.Optimizer]:
        name = "resnet18" if device.type == "cuda" else "convnet"
        method = SimCLR(create_backbone(name, in_chans=3), img_size=side).to(device)
        return method, make_optimizer("adamw", method, 1e-3, 0.05)

    def step(method: nn.Module, optimizer: torch.optim.Optimizer, views: list[Tensor], loss: Callable) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            loss(views).backward()
        optimizer.step()

    ours, our_optimizer = network()
    there = images.to(device)
    steps = {"ours": lambda: step(ours, our_optimizer, ours.views({"images": there}), ours.loss)}
    if find_spec("lightly"):
        from lightly.loss import NTXentLoss

        theirs, their_optimizer = network()
        make_views, criterion = _lightly_views(images), NTXentLoss(0.5)

        def their_loss(views: list[Tensor]) -> Tensor:
            return criterion(*(theirs.projector(theirs.features(view)) for view in views))

        steps["lightly"] = lambda: step(
            theirs, their_optimizer, [view.to(device, non_blocking=True) for view in make_views()], their_loss
        )
    counted, _ = network()
    with FlopCounterMode(display=False) as counter:
        counted.loss(counted.views({"images": there})).backward()
    return steps, counter.get_total_flops()
