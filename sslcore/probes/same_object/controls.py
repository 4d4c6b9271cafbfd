"""What a probe can score without any network: from places, patch colours and raw pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sslcore.probes.same_object.pairs import Pairs
from sslcore.validate import check_images


def position_features(num_images: int, grid: tuple[int, int], frequencies: int = 3) -> Tensor:
    """Places alone, (num_images, h*w, (2F+1)^2): products of row and column waves (and constants).

    A quadratic form in these can follow any smooth function of the two places, so this is a strong control.
    """
    waves = []
    for length in grid:
        place = (torch.arange(length) + 0.5) / length
        angles = math.pi * place[:, None] * torch.arange(1, frequencies + 1)
        waves.append(torch.cat([torch.ones(length, 1), angles.sin(), angles.cos()], 1))
    table = torch.einsum("ra,cb->rcab", *waves).flatten(2).flatten(0, 1)
    return table.expand(num_images, -1, -1)


def patches_of(images: Tensor, patch_size: int) -> Tensor:
    """Pixels of every patch in [0, 1]: (N, C, H, W) -> (N, tokens, p*p, C)."""
    check_images("images", images)
    pixels = images.float() / 255 if images.dtype == torch.uint8 else images.float()
    tiles = pixels.unfold(2, patch_size, patch_size).unfold(3, patch_size, patch_size)
    return tiles.permute(0, 2, 3, 4, 5, 1).flatten(3, 4).flatten(1, 2)


def colour_features(images: Tensor, patch_size: int) -> Tensor:
    """Mean colour and second moments of each patch: (N, tokens, C + C(C+1)/2)."""
    patches = patches_of(images, patch_size)
    moments = patches.transpose(2, 3) @ patches / patches.shape[2]
    rows, columns = torch.triu_indices(patches.shape[3], patches.shape[3])
    return torch.cat([patches.mean(2), moments[..., rows, columns]], -1)


def pixel_features(train: Tensor, others: list[Tensor], patch_size: int, dims: int = 32) -> list[Tensor]:
    """Raw pixels of each patch on the training set's first principal directions, for train and each other set."""
    flat = [patches_of(images, patch_size).flatten(2) for images in (train, *others)]
    rows = flat[0].flatten(0, 1)
    centre = rows.mean(0)
    covariance = (rows - centre).T @ (rows - centre)
    directions = torch.linalg.eigh(covariance)[1].flip(1)[:, :dims]
    return [(patches - centre) @ directions for patches in flat]


def colour_gaps(images: Tensor, patch_size: int, pairs: Pairs) -> Tensor:
    """(P,) distance between the mean colours of the two patches of each pair: no network, no fit.

    A twin may show the very part of an object a second time, the object itself shows it once. So two patches of one
    object differ more in colour than matched patches across two twins, and this gap, as a score for "same object",
    lies above 0.5 there. It is the number that a probe has to beat.
    """
    means = patches_of(images, patch_size).mean(2).to(pairs.image.device)
    return (means[pairs.image, pairs.first] - means[pairs.image, pairs.second]).norm(dim=1)
