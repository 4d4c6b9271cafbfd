"""View policies: what may happen to an image, as one frozen record that renders a whole batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.validate import check_images, require
from sslcore.views.blocks import THRESHOLD, render_blocks
from sslcore.views.blur import blur, default_kernel_size
from sslcore.views.color import ORDERS, apply_mixed_jitter, luma
from sslcore.views.crops import CROP_DRAWS, check_crops, crops_from_uniform, resample
from sslcore.views.draws import check_probability, check_range, uniform
from sslcore.views.pixels import Statistic, check_std, check_unit, normalize_


class ViewParameters(NamedTuple):
    """What was drawn for each image, for `ViewPolicy.render`; crops and flip also fit crop_masks and crop_boxes."""

    crops: Tensor  # (B, 4) top, left, height, width
    flip: Tensor  # (B,) bool
    jitter: Tensor  # (B,) bool: factors apply
    factors: Tensor  # (B, 4) brightness, contrast, saturation, hue; (1, 1, 1, 0) where jitter is False
    order: Tensor  # (B,) long, index into the 24 orders of the four
    grayscale: Tensor  # (B,) bool
    blur: Tensor  # (B,) bool
    sigma: Tensor  # (B,)
    solarize: Tensor  # (B,) bool


@dataclass(frozen=True)
class ViewPolicy:
    """Random resized crop, flip, colour jitter, grayscale, blur and solarize, in that order, then normalise.

    size: side of the square view. scale, ratio: area fraction and aspect ratio of the crop, as in
    `sample_crops`. flip, jitter_probability, grayscale, blur, solarize: probabilities. jitter: strengths of
    brightness, contrast, saturation (factor uniform in [max(0, 1 - s), 1 + s]) and hue (uniform in [-s, s]); every
    image has the four applied in its own random order, where torchvision's ColorJitter draws one order a call.
    blur_sigma: width in pixels, uniform; the kernel spans a tenth of the side. mean, std: see `normalize`. One-channel
    images skip saturation, hue and grayscale. Calling it on images (B, 1|3, H, W), uint8 or float in [0, 1], gives
    (B, C, size, size) float32 on the same device, without gradient. Raises ValueError or TypeError on settings out of
    range and on bad images.
    """

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

    def __post_init__(self) -> None:
        require(isinstance(self.size, int) and self.size >= 1, f"size: expected a positive int, got {self.size!r}")
        check_range("scale", self.scale, 0.0, 1.0)
        check_range("ratio", self.ratio)
        check_range("blur_sigma", self.blur_sigma)
        for name in ("flip", "jitter_probability", "grayscale", "blur", "solarize"):
            check_probability(name, getattr(self, name))
        require(len(self.jitter) == 4, f"jitter: expected four strengths, got {self.jitter}")
        finite = all(0 <= strength < math.inf for strength in self.jitter)
        require(finite and self.jitter[3] <= 0.5, f"jitter: expected strengths >= 0, hue <= 0.5, got {self.jitter}")
        check_std(self.std)

    @property
    def jitters(self) -> bool:
        """Whether colour can change at all."""
        return self.jitter_probability > 0 and any(self.jitter)

    def sample(
        self,
        batch: int,
        height: int,
        width: int,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> ViewParameters:
        """Draw parameters for `batch` images of height x width; see `ViewParameters`."""
        require(batch >= 1, f"batch: expected at least 1, got {batch}")
        draws = uniform((batch, CROP_DRAWS + 11), generator, device)
        crops = crops_from_uniform(draws[:, :CROP_DRAWS], height, width, self.scale, self.ratio)
        flip, jitter, *factors, order, grey, blurred, sigma, inverted = draws[:, CROP_DRAWS:].unbind(1)
        jitter = jitter < self.jitter_probability
        low = [max(0.0, 1 - strength) for strength in self.jitter[:3]] + [-self.jitter[3]]
        high = [1 + strength for strength in self.jitter[:3]] + [self.jitter[3]]
        neutral = (1.0, 1.0, 1.0, 0.0)
        drawn = [
            torch.where(jitter, a + (b - a) * u, torch.full_like(u, same))
            for a, b, u, same in zip(low, high, factors, neutral, strict=True)
        ]
        return ViewParameters(
            crops=crops,
            flip=flip < self.flip,
            jitter=jitter,
            factors=torch.stack(drawn, dim=1),
            order=(order * len(ORDERS)).long(),
            grayscale=grey < self.grayscale,
            blur=blurred < self.blur,
            sigma=self.blur_sigma[0] + (self.blur_sigma[1] - self.blur_sigma[0]) * sigma,
            solarize=inverted < self.solarize,
        )

    @torch.no_grad()
    def render(self, images: Tensor, parameters: ViewParameters, dtype: torch.dtype = torch.float32) -> Tensor:
        """Views (B, C, size, size) for parameters drawn before; the same parameters give the same views."""
        check_images("images", images)
        check_unit("images", images)
        check_crops(parameters.crops, images.shape[0], images.shape[2], images.shape[3])
        return self._render(images, parameters, dtype)

    def __call__(
        self, images: Tensor, generator: torch.Generator | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        check_images("images", images)
        parameters = self.sample(images.shape[0], images.shape[2], images.shape[3], generator, images.device)
        return self.render(images, parameters, dtype)

    def _render(self, images: Tensor, drawn: ViewParameters, dtype: torch.dtype) -> Tensor:
        """By the path that suits the device; V draws, a multiple of B images: view v is of image v modulo B."""
        if images.device.type == "cpu":
            return render_blocks(self, images, drawn).to(dtype)
        from sslcore.kernels import views as fused  # importing Triton takes its time

        if fused.supports(images, self.size):
            blur_kernel = default_kernel_size(self.size) if self.blur > 0 else 0
            constants = {"size": self.size, "jitters": self.jitters, "mean": self.mean, "std": self.std}
            return fused.render(images, drawn, ORDERS, blur_kernel=blur_kernel, dtype=dtype, **constants)
        return self._render_whole(images.repeat(len(drawn.crops) // len(images), 1, 1, 1), drawn).to(dtype)

    def _render_whole(self, images: Tensor, drawn: ViewParameters) -> Tensor:
        """Every operation on every image, no-ops where not drawn: the host never waits for the device."""
        views = resample(images, drawn.crops, (self.size, self.size), drawn.flip, True)
        if self.jitters:
            views = apply_mixed_jitter(views, drawn.factors, drawn.order)
        if self.grayscale > 0 and views.shape[1] == 3:
            views = torch.where(drawn.grayscale.view(-1, 1, 1, 1), luma(views), views)
        if self.blur > 0:
            # a Gaussian this narrow has all its weight on the centre tap
            sigma = torch.where(drawn.blur, drawn.sigma, torch.full_like(drawn.sigma, 1e-3))
            views = blur(views, sigma, default_kernel_size(self.size))
        if self.solarize > 0:
            views = torch.where(drawn.solarize.view(-1, 1, 1, 1) & (views >= THRESHOLD), 1 - views, views)
        return normalize_(views, self.mean, self.std)


def multicrop(
    images: Tensor,
    policies: Sequence[ViewPolicy],
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> list[Tensor]:
    """One view a policy, in order: list of (B, C, size, size); repeat a policy for several crops of a kind.

    Draws as one policy called after the other would; views of one size are then rendered together.
    Raises ValueError when policies is empty, and as a policy does on bad images.
    """
    require(len(policies) >= 1, "policies: expected at least one, got none")
    check_images("images", images)
    check_unit("images", images)
    batch, _, height, width = images.shape
    drawn = [policy.sample(batch, height, width, generator, images.device) for policy in policies]
    kinds: dict[tuple, list[int]] = {}
    for index, policy in enumerate(policies):
        kinds.setdefault((policy.size, str(policy.mean), str(policy.std), policy.jitters), []).append(index)
    views: dict[int, Tensor] = {}
    for indices in kinds.values():
        # what one of them may do is no step to leave out; who gets it was drawn
        chances = {name: max(getattr(policies[i], name) for i in indices) for name in ("grayscale", "blur", "solarize")}
        together = ViewParameters(*(torch.cat(part) for part in zip(*(drawn[i] for i in indices), strict=True)))
        with torch.no_grad():
            rendered = replace(policies[indices[0]], **chances)._render(images, together, dtype)
        views.update(zip(indices, rendered.chunk(len(indices)), strict=True))
    return [views[index] for index in range(len(policies))]
