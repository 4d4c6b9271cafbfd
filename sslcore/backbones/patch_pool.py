"""A conv net that embeds each patch alone, and attention that pools the patches: the network of Selfie."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslcore.backbones.attention import Block
from sslcore.backbones.convnets import StagedConvNet
from sslcore.backbones.positions import resize_positions
from sslcore.backbones.tokens import Tokens, wanted_layers
from sslcore.validate import check_float, check_positive, check_rank, require, unknown

NORMS = ("group", "batch")


def residual_trunk(
    in_chans: int = 1,
    widths: Sequence[int] = (24, 48),
    blocks: int = 1,
    stem_stride: int = 2,
    norm: str = "group",
) -> StagedConvNet:
    """The first groups of a ResNet: a 3 x 3 stem, then one group of basic residual blocks per width.

    The first group keeps the resolution, each later one halves it. ResNet-18 up to its third group, with a small-image
    stem, is widths (64, 128, 256), blocks 2, stem_stride 1, norm "batch". norm "group" treats each image (or patch) on
    its own: hidden patches cannot shift visible ones, and there are no statistics of patches to mislead whole images.
    Raises ValueError for an empty width list, a width that is not a multiple of 4 under "group", or an unknown norm.
    """
    require(len(widths) >= 1, "widths: expected at least one group, got none")
    for name, number in (("in_chans", in_chans), ("blocks", blocks), ("stem_stride", stem_stride)):
        check_positive(name, number)
    stem = nn.Conv2d(in_chans, widths[0], 3, stem_stride, 1, bias=False)
    stages: list[nn.Module] = [nn.Sequential(stem, _normed(norm, widths[0]), nn.ReLU(inplace=True))]
    for index, width in enumerate(widths):
        stages.append(_group(widths[max(0, index - 1)], width, blocks, 2 if index else 1, norm))
    stride = stem_stride * 2 ** (len(widths) - 1)
    net = StagedConvNet(stages, in_chans, widths[-1], stride, "residual_trunk")
    net.reset_parameters()
    return net


def with_fresh_group(
    trunk: StagedConvNet, width: int | None = None, blocks: int = 1, norm: str = "group"
) -> StagedConvNet:
    """A copy of the trunk with one more group of residual blocks, not trained yet: what Selfie fine-tunes.

    width: of the new group, None doubles the trunk's. It halves the resolution once more. Weights follow torch's seed.
    """
    width = 2 * trunk.embed_dim if width is None else width
    fresh = _group(trunk.embed_dim, width, blocks, 2, norm)
    net = StagedConvNet([fresh], trunk.in_chans, width, 2 * trunk.patch_size, trunk.name)
    net.reset_parameters()
    net.stages = nn.ModuleList([*copy.deepcopy(trunk.stages), fresh])
    return net


def _normed(norm: str, width: int) -> nn.Module:
    if norm not in NORMS:
        unknown("norm", norm, NORMS)
    require(width > 0, f"widths: expected positive numbers, got {width}")
    require(norm == "batch" or width % 4 == 0, f"widths: group norm needs multiples of 4, got {width}")
    return nn.GroupNorm(4, width) if norm == "group" else nn.BatchNorm2d(width)


def _group(narrow: int, width: int, blocks: int, stride: int, norm: str) -> nn.Sequential:
    """Basic residual blocks; the first takes the stride and changes the width."""
    from torchvision.models.resnet import BasicBlock

    layers: list[nn.Module] = []
    for number in range(blocks):
        channels, step = (narrow, stride) if number == 0 else (width, 1)
        shortcut = None
        if step != 1 or channels != width:
            shortcut = nn.Sequential(nn.Conv2d(channels, width, 1, step, bias=False), _normed(norm, width))
        layers.append(BasicBlock(channels, width, step, shortcut, norm_layer=lambda size: _normed(norm, size)))
    return nn.Sequential(*layers)


class PatchPool(nn.Module):
    """Patches -> one conv net on each alone -> attention pooling with a learned query -> Tokens.

        h[p] = norm(mean over places of trunk(patch p))                    # no pixel of another patch is read
        sequence = [query, h[p] + position[p] for p in kept patches]
        pooled = norm(transformer(sequence))[0]                            # Tokens.cls_token

    trunk: any StagedConvNet that accepts a patch; after pre-training it also runs on whole images, which is how Selfie
        fine-tunes it (`net.trunk` is itself a backbone with the Tokens interface).
    img_size: side of the reference grid of positions; other sizes divisible by patch_size are accepted.
    depth, num_heads, mlp_ratio: of the pooling transformer.
    Tokens.layers[0] is the patch network's work plus positions, layer l the pool's block l; attentions are the pool's.
    Raises ValueError where sizes do not fit. Source: Trinh et al. 2019 (Selfie, arXiv 1906.02940), patch network and
    attention pooling. The norm behind the trunk is ours: averages of ReLU outputs share a large mean, and with it the
    scores of all candidates start large and alike.
    """

    num_prefix_tokens = 1

    def __init__(
        self,
        trunk: StagedConvNet,
        img_size: int = 32,
        patch_size: int = 8,
        depth: int = 2,
        num_heads: int = 4,
        mlp_ratio: float = 2.0,
    ) -> None:
        super().__init__()
        for name, number in (("patch_size", patch_size), ("depth", depth), ("num_heads", num_heads)):
            check_positive(name, number)
        require(
            img_size >= patch_size and img_size % patch_size == 0,
            f"img_size: expected a multiple of patch_size {patch_size}, got {img_size}",
        )
        dim = trunk.embed_dim
        require(dim % num_heads == 0, f"num_heads: expected a divisor of {dim}, got {num_heads}")
        self.trunk, self.embed_dim, self.patch_size, self.in_chans = trunk, dim, patch_size, trunk.in_chans
        self.num_heads = num_heads
        self.reference_grid = (img_size // patch_size, img_size // patch_size)
        self.patch_norm = nn.LayerNorm(dim, eps=1e-6)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.reference_grid[0] ** 2, dim))
        self.blocks = nn.ModuleList(Block(dim, num_heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the pooling weights and positions anew; the trunk and the norms reset themselves."""
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        for module in self.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def grid_of(self, x: Tensor) -> tuple[int, int]:
        """Rows and columns of patches; raises for images that cannot be cut."""
        check_rank("x", x, 4)
        check_float("x", x)
        batch, channels, height, width = x.shape
        require(
            batch >= 1 and channels == self.in_chans,
            f"x: expected (B >= 1, {self.in_chans}, H, W), got shape {tuple(x.shape)}",
        )
        size = self.patch_size
        require(
            height >= size and width >= size and height % size == 0 and width % size == 0,
            f"x: expected sides that are multiples of patch_size {size}, got {(height, width)}",
        )
        return height // size, width // size

    def embed(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, D): every patch on its own, row by row, no positions."""
        rows, columns = self.grid_of(x)
        size = self.patch_size
        patches = x.unflatten(2, (rows, size)).unflatten(4, (columns, size)).permute(0, 2, 4, 1, 3, 5)
        descriptors = self.trunk(patches.flatten(0, 2)).cls_token
        return self.patch_norm(descriptors.unflatten(0, (x.shape[0], rows * columns)))

    def pool(
        self,
        embedded: Tensor,
        grid: tuple[int, int],
        ids_keep: Tensor | None = None,
        return_layers: bool = False,
        return_attention: bool | Sequence[int] = False,
    ) -> Tokens:
        """Embedded patches (B, N, D) of a grid -> Tokens of the kept ones (ids_keep (B, M) int64; None: all)."""
        check_rank("embedded", embedded, 3)
        require(
            embedded.shape[1:] == (grid[0] * grid[1], self.embed_dim),
            f"embedded: expected (B, {grid[0] * grid[1]}, {self.embed_dim}), got {tuple(embedded.shape)}",
        )
        wanted = wanted_layers(return_attention, len(self.blocks))
        tokens = embedded + resize_positions(self.pos_embed, self.reference_grid, grid)
        if ids_keep is not None:
            check_rank("ids_keep", ids_keep, 2)
            if ids_keep.dtype != torch.int64:
                raise TypeError(f"ids_keep: expected int64 indices, got {ids_keep.dtype}")
            tokens = tokens.gather(1, ids_keep[..., None].expand(-1, -1, self.embed_dim))
        sequence = torch.cat([self.cls_token.expand(len(tokens), -1, -1).to(tokens.dtype), tokens], dim=1)
        layers, attentions = [sequence], {}
        for index, block in enumerate(self.blocks):
            sequence, weights = block(sequence, return_attention=index in wanted)
            layers.append(sequence)
            if index in wanted:
                attentions[index] = weights
        normed = self.norm(sequence)
        return Tokens(
            cls_token=normed[:, 0],
            patch_tokens=normed[:, 1:],
            grid=grid,
            layers=layers if return_layers else None,
            attentions=[attentions[index] for index in wanted] if wanted else None,
            num_prefix_tokens=1,
        )

    def forward(
        self,
        x: Tensor,
        *,
        ids_keep: Tensor | None = None,
        return_layers: bool = False,
        return_attention: bool | Sequence[int] = False,
    ) -> Tokens:
        """(B, C, H, W) float images -> Tokens. ids_keep: only these patches are pooled."""
        return self.pool(self.embed(x), self.grid_of(x), ids_keep, return_layers, return_attention)


def patch_pool(
    in_chans: int = 3,
    widths: Sequence[int] = (24, 48),
    blocks: int = 1,
    stem_stride: int = 2,
    norm: str = "group",
    **pool: int | float,
) -> PatchPool:
    """PatchPool round a residual_trunk, from plain numbers, as a checkpoint's card holds them."""
    return PatchPool(residual_trunk(in_chans, widths, blocks, stem_stride, norm), **pool)
