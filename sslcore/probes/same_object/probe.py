"""Probes that score whether two tokens lie on one object; a batch of probes is fitted side by side."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sslcore.validate import check_rank, require, unknown

KINDS = ("additive", "diagonal", "quadratic", "lowrank")


class SameObjectProbe(nn.Module):
    """S independent probes (one for each layer or network), each giving logits for pairs of width-d tokens.

    additive    s = w . (x + y) + b                   cannot tell which pairs of objects agree
    diagonal    s = sum_k w_k x_k y_k + b             agreement along the given axes only
    quadratic   s = x' W y / sqrt(d) + b              W symmetric, any sign
    lowrank     s = (A'x . A'y - B'x . B'y) / sqrt(d) + b   one positive and one negative part of rank r
    All are symmetric in x and y. Source: Li et al. 2025, section on IsSameObject probes.
    """

    def __init__(self, kind: str, width: int, num_probes: int = 1, rank: int = 32, seed: int = 0) -> None:
        super().__init__()
        if kind not in KINDS:
            unknown("probe kind", kind, KINDS)
        require(width >= 1 and num_probes >= 1, f"probe: expected width and count >= 1, got {width} and {num_probes}")
        require(rank >= 1, f"rank: expected at least 1, got {rank}")
        self.kind, self.width = kind, width
        self.bias = nn.Parameter(torch.zeros(num_probes))
        if kind in ("additive", "diagonal"):
            self.weight = nn.Parameter(torch.zeros(num_probes, width))
        elif kind == "quadratic":
            self.weight = nn.Parameter(torch.zeros(num_probes, width, width))
        else:
            rank = min(rank, width)
            generator = torch.Generator().manual_seed(seed)
            factor = torch.randn(width, rank, generator=generator) / math.sqrt(width)
            # Both parts start equal: every logit is 0 and the data decides which directions agree or oppose.
            self.positive = nn.Parameter(factor.repeat(num_probes, 1, 1))
            self.negative = nn.Parameter(factor.repeat(num_probes, 1, 1))

    def matrix(self) -> Tensor:
        """Symmetric (S, d, d) matrix M with s = x' M y + b; not defined for the additive kind (ValueError)."""
        require(self.kind != "additive", "matrix: the additive probe has no quadratic form")
        if self.kind == "diagonal":
            return torch.diag_embed(self.weight)
        if self.kind == "quadratic":
            return (self.weight + self.weight.transpose(1, 2)) / (2 * math.sqrt(self.width))
        parts = self.positive @ self.positive.transpose(1, 2) - self.negative @ self.negative.transpose(1, 2)
        return parts / math.sqrt(self.width)

    def similarity(self, tokens: Tensor) -> Tensor:
        """tokens (S, B, N, d) -> logits without the bias, (S, B, N, N): every ordered pair of an image."""
        check_rank("tokens", tokens, 4)
        if self.kind == "additive":
            part = (tokens * self.weight[:, None, None]).sum(-1)
            return part[..., :, None] + part[..., None, :]
        if self.kind == "diagonal":
            return (tokens * self.weight[:, None, None]) @ tokens.transpose(-1, -2)
        flat = tokens.flatten(1, 2)
        if self.kind == "quadratic":
            return (flat @ self.matrix()).view_as(tokens) @ tokens.transpose(-1, -2)
        rank = self.positive.shape[-1]
        factors = (flat @ torch.cat([self.positive, self.negative], -1)).view(*tokens.shape[:-1], 2 * rank)
        signed = factors * torch.cat([factors.new_ones(rank), factors.new_full((rank,), -1.0)]) / math.sqrt(self.width)
        return signed @ factors.transpose(-1, -2)

    def forward(self, tokens: Tensor, image: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """tokens (S, B, N, d); image, first, second (P,) -> logits (S, P)."""
        # The bias comes after the look-up: adding it to all N * N pairs would cost more than the pairs in use.
        return self.similarity(tokens)[:, image, first, second] + self.bias[:, None]
