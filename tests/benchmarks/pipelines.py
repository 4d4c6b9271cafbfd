"""Contenders that make or start from images: scenes, two SimCLR views of each picture, a whole training step."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from sslcore.backbones import create_backbone
from sslcore.data import compose_scenes
from sslcore.data.embedded import stamp_pixels
from sslcore.methods import SimCLR
from sslcore.training import fit
from sslcore.training.optimizers import make_optimizer
from sslcore.views import simclr_policy

JITTER = (0.8, 0.8, 0.8, 0.2)


def _lightly_views(images: Tensor) -> Callable[[], list[Tensor]]:
    """lightly's transform, image by image with PIL, in this process."""
    data = _Pictures(images)
    return lambda: [torch.stack(view) for view in zip(*(data[index] for index in range(len(data))), strict=True)]


class _Pictures(torch.utils.data.Dataset):
    """Images as PIL pictures under lightly's transform: what its data loader reads."""

    def __init__(self, images: Tensor) -> None:
        from lightly.transforms import SimCLRTransform

        side = images.shape[-1]
        self.transform = SimCLRTransform(input_size=side, gaussian_blur=0.5 if side >= 40 else 0.0)
        self.pictures = [to_pil_image(image) for image in images]

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> list[Tensor]:
        return self.transform(self.pictures[index])


def lightly_loader(images: Tensor, workers: int) -> Callable[[], list[Tensor]]:
    """The next two views of all images from lightly's transform in `workers` processes that run ahead."""
    data = _Pictures(images)
    endless = torch.utils.data.RandomSampler(data, replacement=True, num_samples=10**9)
    loader = torch.utils.data.DataLoader(
        data, len(data), sampler=endless, num_workers=workers, pin_memory=torch.cuda.is_available(), drop_last=True
    )
    stream = iter(loader)
    return lambda: next(stream)


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
    """For each contender a training step with views, and the operations of the network's forward and backward.

    On a GPU lightly's views come from 16 worker processes, as people run it; on the CPU they share its one core.
    """
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
        criterion, workers = NTXentLoss(0.5), 16 if device.type == "cuda" else 0
        make_views = lightly_loader(images, workers) if workers else _lightly_views(images)

        def their_loss(views: list[Tensor]) -> Tensor:
            return criterion(*(theirs.projector(theirs.features(view)) for view in views))

        name = f"lightly, {workers} workers" if workers else "lightly"
        steps[name] = lambda: step(
            theirs, their_optimizer, [view.to(device, non_blocking=True) for view in make_views()], their_loss
        )
    counted, _ = network()
    with FlopCounterMode(display=False) as counter:
        counted.loss(counted.views({"images": there})).backward()
    return steps, counter.get_total_flops()


NETWORKS = {
    "small conv net": ("convnet", {"in_chans": 3}),
    "ResNet-18": ("resnet18", {"in_chans": 3}),
    "ViT-S/4": ("vit", {"img_size": 32, "patch_size": 4, "embed_dim": 384, "depth": 12, "num_heads": 6}),
}


def fit_and_bare_steps(
    images: Tensor, device: torch.device, network: str, batch: int, steps: int
) -> tuple[dict[str, Callable[[], object]], float]:
    """`fit` with SimCLR for some steps, the same number of bare steps on views that lie ready, and their operations."""
    kind, settings = NETWORKS[network]
    half, conv = device.type == "cuda", kind != "vit"

    def method() -> SimCLR:
        return SimCLR(create_backbone(kind, **settings), img_size=images.shape[-1]).to(device)

    fitted, bare, there = method(), method(), images.to(device)
    layout = torch.channels_last if conv and half else torch.contiguous_format
    bare.to(memory_format=layout)
    optimizer = make_optimizer("adamw", bare, 1e-3, 0.05)
    ready = [view.contiguous(memory_format=layout) for view in bare.views({"images": there[:batch]})]

    def bare_steps() -> None:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=half):
                loss = bare.loss(ready)
            loss.backward()
            optimizer.step()

    def fit_steps() -> None:
        fit(fitted, there, steps=steps, batch_size=batch, device=device, channels_last=conv and half, progress=False)

    with FlopCounterMode(display=False) as counter:
        bare.loss(ready).backward()
    return {"ours": fit_steps, "bare step": bare_steps}, counter.get_total_flops() * steps


def _pil_scenes(num: int, side: int) -> Callable[[], list[tuple[np.ndarray, np.ndarray]]]:
    """Scenes as a data set's __getitem__ would paint them: one at a time, with PIL, places tried until one is free."""
    stamps = [Image.fromarray(stamp.permute(1, 2, 0).numpy(), "RGBa").convert("RGBA") for stamp in stamp_pixels()]
    draw = random.Random(0)

    def ground() -> Image.Image:
        base = np.array([draw.uniform(64, 191) for _ in range(3)])
        picture = np.zeros((side, side, 3), np.float32) + base
        for cells, strength in ((4, 28.0), (9, 13.0), (20, 5.0)):
            noise = np.random.default_rng(draw.getrandbits(32)).standard_normal((cells, cells, 3)).astype(np.float32)
            layers = [Image.fromarray(noise[..., c]).resize((side, side), Image.Resampling.BICUBIC) for c in range(3)]
            picture += strength * np.stack([np.asarray(layer) for layer in layers], axis=-1)
        return Image.fromarray(picture.clip(0, 255).astype(np.uint8))

    def scene() -> tuple[np.ndarray, np.ndarray]:
        picture, mask = ground(), np.zeros((side, side), np.uint8)
        for slot in range(4):
            stamp = stamps[draw.randrange(len(stamps))]
            scale = draw.uniform(0.25, 0.45) * side / max(stamp.size)
            stamp = stamp.resize([max(1, round(scale * length)) for length in stamp.size], Image.Resampling.BILINEAR)
            stamp = stamp.rotate(draw.uniform(-30, 30), Image.Resampling.BILINEAR, expand=True)
            if draw.random() < 0.5:
                stamp = stamp.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            colour = ImageEnhance.Brightness(stamp.convert("RGB")).enhance(draw.uniform(0.75, 1.2))
            alpha = stamp.getchannel("A")
            solid = np.asarray(alpha) > 127
            height, width = solid.shape
            for _ in range(20):
                top, left = draw.randrange(max(1, side - height)), draw.randrange(max(1, side - width))
                window = mask[top : top + height, left : left + width]
                seen = solid[: window.shape[0], : window.shape[1]]
                if (window[seen] > 0).sum() <= 0.1 * solid.sum():
                    break
            picture.paste(colour, (left, top), alpha)
            window[seen] = slot + 1
        return np.asarray(picture), mask

    return lambda: [scene() for _ in range(num)]


def scene_makers(num: int, side: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Scenes of four photo cut-outs with masks: ours in batches on the device, the peer one by one in this process."""
    ours = partial(compose_scenes, num, img_size=side, captions=False, device=device)
    return {"ours": ours, "PIL loop": _pil_scenes(num, side)}
