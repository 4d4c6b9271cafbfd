"""What every backbone returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslcore.validate import require


@dataclass
class Tokens:
    """The read-out shared by all backbones; B images, N patch tokens, D channels, P prefix tokens, H heads.

    cls_token (B, D): global descriptor. The class token after the final norm, or the mean of the patch tokens
    when the net has none.
    patch_tokens (B, N, D): after the final norm, row-major over `grid`. With `ids_keep` only the kept ones, in
    the order of `ids_keep`; `grid` still describes the whole image.
    layers: index 0 is the sequence after embedding and positions, index l the output of block l, before any
    final norm: (B, P + N, D) each. Convolutional nets give their stem and stages, each with its own N and D.
    attentions: softmax weights (B, H, P + N, P + N) in float32, rows = queries; every block in order, or those
    asked for.
    mlp_outputs: what the MLP of each block gave before it was added to the sequence, (B, P + N, D).
    """

    cls_token: Tensor
    patch_tokens: Tensor
    grid: tuple[int, int]
    register_tokens: Tensor | None = None
    layers: list[Tensor] | None = None
    attentions: list[Tensor] | None = None
    mlp_outputs: list[Tensor] | None = None
    num_prefix_tokens: int = 0

    @property
    def pooled(self) -> Tensor:
        """Mean of the patch tokens, (B, D)."""
        return self.patch_tokens.mean(dim=1)


def can_read(tensor: Tensor) -> bool:
    """Whether checks may look at values: not on a GPU (it stalls the host), nor while compiling (a graph break)."""
    return not tensor.is_cuda and not torch.compiler.is_compiling()


def wanted_layers(return_attention: bool | Sequence[int], depth: int) -> list[int]:
    """Blocks whose attention is asked for, as indices in [0, depth). Negative ones count from the end.

    Raises ValueError for an index outside [-depth, depth).
    """
    if isinstance(return_attention, bool):
        return list(range(depth)) if return_attention else []
    for index in return_attention:
        require(-depth <= index < depth, f"return_attention: expected layers in [{-depth}, {depth}), got {index}")
    return [index % depth for index in return_attention]


def refuse_attention(return_attention: bool | Sequence[int], network: str) -> None:
    """Raise ValueError when attention is asked of a net that has none to show."""
    require(
        return_attention is False or (not isinstance(return_attention, bool) and len(return_attention) == 0),
        f"return_attention: {network} has no softmax attention over patches to return; use a vision transformer",
    )
