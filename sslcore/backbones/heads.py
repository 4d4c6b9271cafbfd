"""Heads on top of a global descriptor: MLPs, prototypes and the DINO head."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.validate import check_positive, require, unknown

NORMS = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU}


def mlp(
    dims: Sequence[int],
    norm: str | None = "batch",
    act: str = "relu",
    last_norm: bool = False,
    bias_last: bool = True,
    last_affine: bool = True,
) -> nn.Sequential:
    """Linear layers dims[0] -> dims[1] -> ...; norm and activation between them. Serves as projector and predictor.

    norm: "batch" (inputs (B, D) only), "layer" or None. Hidden layers in front of a norm have no bias of their own.
    last_norm appends the norm to the output too, without gain and offset where last_affine=False (SimSiam, MoCo v3).
    Examples: SimCLR mlp([d, 2048, 2048, 128], last_norm=True, bias_last=False); BYOL mlp([d, 4096, 256]);
    MoCo v2 mlp([d, d, 128], norm=None).
    Raises ValueError for fewer than two widths, a width below 1, an unknown norm or act, or last_norm without norm.
    """
    require(len(dims) >= 2, f"dims: expected at least input and output width, got {list(dims)}")
    for width in dims:
        check_positive("dims", width)
    if norm is not None and norm not in NORMS:
        unknown("norm", norm, [*NORMS, "None"])
    if act not in ACTIVATIONS:
        unknown("act", act, ACTIVATIONS)
    require(norm is not None or not last_norm, "last_norm: needs a norm, got norm=None")
    layers: list[nn.Module] = []
    for narrow, wide in zip(dims[:-2], dims[1:-1], strict=True):
        layers.append(nn.Linear(narrow, wide, bias=norm is None))
        if norm is not None:
            layers.append(NORMS[norm](wide))
        layers.append(ACTIVATIONS[act]())
    layers.append(nn.Linear(dims[-2], dims[-1], bias=bias_last))
    if last_norm:
        key = "affine" if norm == "batch" else "elementwise_affine"
        layers.append(NORMS[norm](dims[-1], **{key: last_affine}))
    return nn.Sequential(*layers)


class Prototypes(nn.Module):
    """Scores of features against K learned directions: (..., dim) -> (..., num_prototypes).

    normalize=True scores are cosines in [-1, 1]: features and prototypes are brought to length 1 in the forward pass
    (a weight-normalised linear layer with gain 1, as in DINO and SwAV). normalize=False is a linear map without bias.
    freeze() stops learning: the gradient of the weight becomes exactly zero, not None, so DDP keeps working. The
    switch is a buffer: checkpoints carry it, no host read. With normalize=False weight decay still acts.
    """

    def __init__(self, dim: int, num_prototypes: int, normalize: bool = True):
        super().__init__()
        check_positive("dim", dim)
        check_positive("num_prototypes", num_prototypes)
        self.normalize = normalize
        self.weight = nn.Parameter(torch.empty(num_prototypes, dim))
        self.register_buffer("learning", torch.ones(()))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def freeze(self, frozen: bool = True) -> None:
        """Stop (or with False resume) the learning of the prototypes."""
        self.learning.fill_(0.0 if frozen else 1.0)

    @torch.no_grad()
    def normalize_(self) -> None:
        """Bring the stored weights to length 1 in place: what SwAV does before every step."""
        self.weight.copy_(F.normalize(self.weight, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        require(
            x.shape[-1] == self.weight.shape[1],
            f"x: expected last dimension {self.weight.shape[1]}, got shape {tuple(x.shape)}",
        )
        # Same value either way; only the gradient is scaled by `learning`.
        weight = torch.lerp(self.weight.detach(), self.weight, self.learning)
        if self.normalize:
            x, weight = F.normalize(x, dim=-1), F.normalize(weight, dim=-1)
        return F.linear(x, weight)


class DINOHead(nn.Module):
    """Three-layer GELU MLP to a bottleneck, then cosines with out_dim prototypes.

    (..., in_dim) -> (..., out_dim). The paper uses hidden_dim 2048, bottleneck_dim 256, out_dim 65536; the defaults
    here suit small nets.
    Each linear layer starts with standard deviation 1 / sqrt(its inputs). The authors take 0.02 everywhere, which is
    the same at 2048 inputs but leaves a head of this size nearly constant: the biases then outgrow the features.
    standardize: batch norm without gain and offset in front (not in the paper), so that what all inputs share is gone.
    `head.prototypes.freeze()` is the paper's "no gradient for the last layer in the first epoch".
    Source: arXiv 2104.14294, section 3.1 and appendix C.
    """

    def __init__(
        self, in_dim: int, out_dim: int, hidden_dim: int = 256, bottleneck_dim: int = 64, standardize: bool = False
    ):
        super().__init__()
        self.standardize = nn.BatchNorm1d(in_dim, affine=False) if standardize else nn.Identity()
        self.mlp = mlp([in_dim, hidden_dim, hidden_dim, bottleneck_dim], norm=None, act="gelu")
        self.prototypes = Prototypes(bottleneck_dim, out_dim)
        for module in self.mlp:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> Tensor:
        flat = self.standardize(x.flatten(0, -2))
        return self.prototypes(self.mlp(flat)).unflatten(0, x.shape[:-1])
