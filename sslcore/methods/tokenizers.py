"""Tokenizers that need no training by gradients: the code of a patch is its nearest centroid."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sslcore.objectives import kmeans, patchify
from sslcore.validate import check_rank, require


def standardised(patches: Tensor) -> Tensor:
    """Each row minus its mean, over its deviation, as MAE scores it."""
    return (patches - patches.mean(-1, keepdim=True)) / (patches.var(-1, keepdim=True) + 1e-6).sqrt()


class PatchCodes(nn.Module):
    """A tokenizer: `codes` says which centroid each patch is nearest to.

    centroids: (V, p * p * C) in patchify's layout. standardize: compare patches minus their own mean over their own
    deviation, so that brightness and contrast do not enter. Raises ValueError where the sizes do not fit.
    """

    def __init__(self, centroids: Tensor, patch_size: int, standardize: bool = True) -> None:
        super().__init__()
        check_rank("centroids", centroids, 2)
        fits = centroids.shape[0] >= 2 and centroids.shape[1] % patch_size**2 == 0
        require(fits, f"centroids: expected (V >= 2, {patch_size}**2 * C), got {tuple(centroids.shape)}")
        self.num_codes, self.patch_size, self.standardize = centroids.shape[0], patch_size, standardize
        self.register_buffer("centroids", centroids)

    @classmethod
    def fit(
        cls, images: Tensor, num_codes: int, patch_size: int, standardize: bool = True, seed: int = 0, **settings: int
    ) -> PatchCodes:
        """The centroids that k-means finds among the patches of (B, C, H, W) float images; settings go to `kmeans`."""
        patches = patchify(images, patch_size).flatten(0, 1)
        patches = standardised(patches) if standardize else patches
        generator = torch.Generator().manual_seed(seed)
        return cls(kmeans(patches, num_codes, generator=generator, **settings).centroids, patch_size, standardize)

    @torch.no_grad()
    def codes(self, images: Tensor) -> Tensor:
        """(B, C, H, W) float images -> (B, N) int64."""
        patches = patchify(images, self.patch_size).float()
        patches = standardised(patches) if self.standardize else patches
        return torch.cdist(patches, self.centroids[None].to(patches)).argmin(2)
