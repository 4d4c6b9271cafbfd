"""What a probe can learn by heart, and whether features and labels are laid out in the same order."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import check_rank, require


def permuted_ids(labels: Tensor, usable: Tensor, seed: int = 0, twin_of: Tensor | None = None) -> Tensor:
    """Instance ids (B, N) dealt anew among the usable tokens of each image; all others stay.

    A control task: the new grouping is as consistent as the true one (each token has one id), but nothing in the image
    gives it away. With twin_of (B, K) ids are dealt only among the tokens of an object
    and its twin, so that same-class pairs stay same-class pairs. A probe that scores on training pairs of such ids
    learns by heart; on fresh images it must sit at chance.
    Source of the idea: Hewitt & Liang 2019, control tasks.
    """
    check_rank("labels", labels, 2)
    require(labels.shape == usable.shape, f"usable: expected {tuple(labels.shape)}, got {tuple(usable.shape)}")
    group = usable.long() * (labels > 0)
    if twin_of is not None:
        pad = torch.cat([torch.full_like(twin_of[:, :1], -1), twin_of], 1).to(labels).gather(1, labels)
        group = group * torch.where(pad >= 0, torch.minimum(labels, pad + 1), labels)
    noise = torch.rand(labels.shape, generator=torch.Generator().manual_seed(seed)).to(labels.device)
    # Tokens of a group lie together: once in random order, once in their own. Group 0 keeps its order.
    order = (group + noise * (group > 0)).argsort(dim=1, stable=True)
    sources = group.argsort(dim=1, stable=True)
    return labels.scatter(1, order, labels.gather(1, sources))


def place_r2(train: Tensor, test: Tensor, places: tuple[Tensor, Tensor], grid: tuple[int, int]) -> Tensor:
    """R^2 (S,) on test of a ridge map from tokens to (row, column): near 1 where features and labels are in one order.

    train, test: features (S, M, T, d). places: token numbers (M, T) that train and test tokens are said to have.
    Networks with positional embeddings give nearly 1 at the first layers; a value near 0 there says that tokens and
    labels were paired wrongly, and every score read from such pairs is void.
    """
    check_rank("train", train, 4)

    def target(numbers: Tensor) -> Tensor:
        return torch.stack([numbers // grid[1], numbers % grid[1]], -1).flatten(0, 1).double()

    x, y = (part.flatten(1, 2).double() for part in (train, test))
    aim, true = target(places[0]), target(places[1])
    centre, middle = x.mean(1, keepdim=True), aim.mean(0)
    x, y = x - centre, y - centre
    gram = x.mT @ x
    ridge = 1e-6 * gram.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(x.shape[2], dtype=x.dtype)
    guess = y @ torch.linalg.solve(gram + ridge, x.mT @ (aim - middle)) + middle
    return (1 - (guess - true).square().sum((1, 2)) / (true - true.mean(0)).square().sum()).float()
