"""The objectives as one writes them with plain torch and nothing else in mind: peers, and a check on the values."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """z0, z1 (N, D) -> scalar."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    logits = z @ z.T / temperature
    logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool, device=z.device), float("-inf"))
    return F.cross_entropy(logits, torch.arange(len(z), device=z.device).roll(len(z0)))


def sigreg(z: Tensor, num_slices: int) -> Tensor:
    """z (V, N, D) -> scalar."""
    slices = torch.randn(z.shape[2], num_slices, device=z.device)
    slices = slices / slices.norm(dim=0)
    knots = torch.linspace(0, 3, 17, device=z.device)
    phi = torch.exp(-knots.square() / 2)
    weights = torch.full_like(knots, 3 / 8)
    weights[[0, -1]] /= 2
    angles = (z @ slices)[..., None] * knots
    gap = (angles.cos().mean(dim=1) - phi).square() + angles.sin().mean(dim=1).square()
    return (gap @ (weights * phi)).mean() * z.shape[1]


def _off_diagonal_energy(matrix: Tensor) -> Tensor:
    return matrix.masked_fill(torch.eye(len(matrix), dtype=torch.bool, device=matrix.device), 0).square().sum()


def barlow_twins(z0: Tensor, z1: Tensor, lambd: float) -> Tensor:
    """z0, z1 (N, D) -> scalar."""
    a, b = (F.batch_norm(z, None, None, training=True) for z in (z0, z1))
    correlation = a.T @ b / len(a)
    return (correlation.diagonal() - 1).square().sum() + lambd * _off_diagonal_energy(correlation)


def vicreg(z0: Tensor, z1: Tensor) -> Tensor:
    """z0, z1 (N, D) -> scalar, weights 25, 25, 1."""
    loss = 25 * F.mse_loss(z0, z1)
    for z in (z0, z1):
        z = z - z.mean(dim=0)
        loss = loss + 12.5 * F.relu(1 - torch.sqrt(z.var(dim=0) + 1e-4)).mean()
        loss = loss + _off_diagonal_energy(z.T @ z / (len(z) - 1)) / z.shape[1]
    return loss


def _cross_entropy(target: Tensor, logits: Tensor) -> Tensor:
    return -(target * logits.log_softmax(dim=1)).sum(dim=1).mean()


def dino(student: Tensor, teacher: Tensor, center: Tensor) -> Tensor:
    """student (S, B, K), teacher (T, B, K), center (K,) -> scalar."""
    targets = ((teacher - center) / 0.04).softmax(dim=2)
    pairs = [_cross_entropy(q, s / 0.1) for t, q in enumerate(targets) for i, s in enumerate(student) if i != t]
    return torch.stack(pairs).mean()


def swav(scores: Tensor, num_assigning: int = 2) -> Tensor:
    """scores (V, B, K) -> scalar."""
    losses = []
    for a in range(num_assigning):
        with torch.no_grad():
            codes = (scores[a] / 0.05).exp().T
            codes = codes / codes.sum()
            for _ in range(3):
                codes = codes / codes.sum(dim=1, keepdim=True) / codes.shape[0]
                codes = codes / codes.sum(dim=0, keepdim=True) / codes.shape[1]
            codes = (codes * codes.shape[1]).T
        losses += [_cross_entropy(codes, scores[v] / 0.1) for v in range(len(scores)) if v != a]
    return torch.stack(losses).mean()
