"""View policies: what may happen to an image, as one frozen record that renders a whole batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.validate import check_images
from sslcore.views.blur import blur, default_kernel_size
from sslcore.views.color import apply_jitter_, luma
from sslcore.views.crops import CROP_DRAWS, crops_from_uniform, resample
from sslcore.views.draws import uniform
from sslcore.views.pixels import Statistic, check_unit

ORDERS = tuple(permutations(range(4)))


class ViewParameters(NamedTuple):
    """What was drawn for each image: pass it to `render`, or its crops and flip to crop_masks and crop_boxes."""

    crops: Tensor  # (B, 4) top, left, height, width
    flip: Tensor  # (B,) bool
    jitter: Tensor  # (B,) bool
    factors: Tensor  # (B, 4) brightness, contrast, saturation, hue
    order: Tensor  # (B,) long, index into ORDERS
    grayscale: Tensor  # (B,) bool
    blur: Tensor  # (B,) bool
    sigma: Tensor  # (B,)
    solarize: Tensor  # (B,) bool


@dataclass(frozen=True)
class ViewPolicy:
    size: int
    scale: tuple[float, float] = (0.2, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.5
    jitter: tuple[float, float, float, float] = (0.4, 0.4, 0.4, 0.1)
    jitter_probability: float = 0.8
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    solarize: float = 0.0
    mean: Statistic = 0.5
    std: Statistic = 0.25

    def sample(self, batch, height, width, generator=None, device=None) -> ViewParameters:
        u = uniform((batch, CROP_DRAWS + 11), generator, device)
        crops = crops_from_uniform(u[:, :CROP_DRAWS], height, width, self.scale, self.ratio)
        u = u[:, CROP_DRAWS:]
        low = torch.tensor([max(0.0, 1 - s) for s in self.jitter[:3]] + [-self.jitter[3]])
        high = torch.tensor([1 + s for s in self.jitter[:3]] + [self.jitter[3]])
        low, high = low.to(u.device), high.to(u.device)
        return ViewParameters(
            crops=crops,
            flip=u[:, 0] < self.flip,
            jitter=u[:, 1] < self.jitter_probability,
            factors=low + (high - low) * u[:, 2:6],
            order=(u[:, 6] * len(ORDERS)).long(),
            grayscale=u[:, 7] < self.grayscale,
            blur=u[:, 8] < self.blur,
            sigma=self.blur_sigma[0] + (self.blur_sigma[1] - self.blur_sigma[0]) * u[:, 9],
            solarize=u[:, 10] < self.solarize,
        )

    def render(self, images: Tensor, p: ViewParameters) -> Tensor:
        views = resample(images, p.crops, (self.size, self.size), p.flip, True)
        color = images.shape[1] == 3
        if any(self.jitter) and self.jitter_probability > 0:
            for index, order in enumerate(ORDERS):
                chosen = (p.jitter & (p.order == index)).nonzero().squeeze(1)
                if len(chosen):
                    views[chosen] = apply_jitter_(views[chosen], p.factors[chosen], order)
        if color and self.grayscale > 0:
            views = torch.where(p.grayscale.view(-1, 1, 1, 1), luma(views), views)
        if self.blur > 0:
            chosen = p.blur.nonzero().squeeze(1)
            if len(chosen):
                views[chosen] = blur(views[chosen], p.sigma[chosen], default_kernel_size(self.size))
        if self.solarize > 0:
            views = torch.where(p.solarize.view(-1, 1, 1, 1) & (views >= 0.5), 1 - views, views)
        return views.sub_(self.mean).div_(self.std)

    def __call__(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        check_images("images", images)
        check_unit("images", images)
        p = self.sample(len(images), *images.shape[2:], generator, images.device)
        return self.render(images, p)


def multicrop(
    images: Tensor, policies: Sequence[ViewPolicy], generator: torch.Generator | None = None
) -> list[Tensor]:
    """One view a policy, in order: list of (B, C, size, size) float32; repeat a policy for several crops of a kind."""
    return [policy(images, generator) for policy in policies]
