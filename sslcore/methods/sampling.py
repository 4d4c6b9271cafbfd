"""Samples from an energy-based model: Langevin steps uphill, and the buffer that keeps the chains going."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sslcore.validate import check_images, check_rank, require


def langevin(
    score: Callable[[Tensor], Tensor], images: Tensor, noise: Tensor, step_size: float, sigma: float
) -> Tensor:
    """Follow the score uphill with a little noise, one step for each entry of `noise`.

        for t in range(T):
            images = images + step_size * gradient(sum(score(images))) + sigma * noise[:, t]

    score: images (B, C, H, W) -> (B,). images: where the chains start. noise: (B, T, C, H, W) standard normal numbers.
    Exact Langevin sampling has sigma^2 = 2 * step_size; a smaller sigma, as is usual, samples a colder model.
    Only the images' gradient is taken: parameters keep theirs. Returns detached images of the same shape.
    Raises ValueError for shapes that do not fit. Source: Welling & Teh 2011; Grathwohl et al. 2020 (JEM), equation 3.
    """
    check_rank("images", images, 4)
    check_rank("noise", noise, 5)
    expected = (len(images), noise.shape[1], *images.shape[1:])
    require(tuple(noise.shape) == expected, f"noise: expected {expected}, got {tuple(noise.shape)}")
    images = images.detach()
    for step in range(noise.shape[1]):
        images.requires_grad_()
        with torch.enable_grad():
            (uphill,) = torch.autograd.grad(score(images).sum(), images)
        images = images.detach() + step_size * uphill + sigma * noise[:, step]
    return images


class ReplayBuffer(nn.Module):
    """Images where earlier chains ended: the next chains start there. A buffer, so that a checkpoint carries it.

    images: (size, C, H, W), uniform in [-bound, bound] at the start. Raises ValueError for no size or bound <= 0.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], bound: float = 1.0) -> None:
        super().__init__()
        require(size >= 1, f"size: expected at least 1, got {size}")
        require(bound > 0, f"bound: expected a number above 0, got {bound}")
        self.bound = bound
        self.register_buffer("images", (2 * torch.rand(size, *shape) - 1) * bound)

    def starts(self, slots: Tensor, fresh: Tensor, uniform: Tensor) -> Tensor:
        """(B, C, H, W): what lies in slots (B,); where fresh (B,) bool, noise from uniform (B, C, H, W) in [0, 1]."""
        check_images("uniform", uniform)
        return torch.where(fresh[:, None, None, None], (2 * uniform - 1) * self.bound, self.images[slots])

    @torch.no_grad()
    def write(self, slots: Tensor, images: Tensor) -> None:
        """Put images (B, C, H, W) back into the slots (B,) they came from."""
        self.images.index_copy_(0, slots, images.to(self.images.dtype))
