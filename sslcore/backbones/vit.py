"""A vision transformer that can drop, hide and mask tokens and show its exact attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sslcore.backbones.attention import AttentionMask, Block, check_attention_mask
from sslcore.backbones.positions import resize_positions, rope_angles, sincos_positions
from sslcore.backbones.tokens import Tokens, can_read, wanted_layers
from sslcore.validate import check_float, check_positive, check_rank, check_tensor, require, unknown

POSITIONS = ("learned", "sincos", "rope", "none")


class VisionTransformer(nn.Module):
    """Patches -> tokens -> pre-norm transformer -> Tokens. Parameter names and arithmetic follow timm's ViT.

    img_size (int or (height, width)) fixes the reference grid of the positions; other sizes divisible by patch_size
    are accepted in forward. pos_embed: "learned" table, fixed "sincos", axial "rope" in every block, or "none".
    num_registers: learned tokens without positions behind the class token (arXiv 2309.16588). Without class_token
    `Tokens.cls_token` is the mean of the patch tokens. init_values: layer scale; drop_path: rate of the last block,
    rising linearly from 0. Weights start from a normal of std 0.02 truncated at two sigma, biases from 0.

    Raises ValueError where img_size / patch_size, embed_dim / num_heads or the position kind do not fit.
    Source: arXiv 2010.11929; timm.models.vision_transformer for names, order of prefix tokens and defaults.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 64,
        patch_size: int = 8,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        class_token: bool = True,
        num_registers: int = 0,
        pos_embed: str = "learned",
        init_values: float | None = None,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.grad_checkpointing = False
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        for name, number in dict(patch_size=patch_size, in_chans=in_chans, depth=depth, num_heads=num_heads).items():
            check_positive(name, number)
        if pos_embed not in POSITIONS:
            unknown("pos_embed", pos_embed, POSITIONS)
        require(
            height >= patch_size and width >= patch_size and height % patch_size == 0 and width % patch_size == 0,
            f"img_size: expected multiples of patch_size {patch_size}, got {(height, width)}",
        )
        require(embed_dim % num_heads == 0, f"embed_dim: expected a multiple of {num_heads} heads, got {embed_dim}")
        require(num_registers >= 0, f"num_registers: expected 0 or more, got {num_registers}")
        require(0.0 <= drop_path < 1.0, f"drop_path: expected a rate in [0, 1), got {drop_path}")
        self.patch_size, self.in_chans, self.embed_dim = patch_size, in_chans, embed_dim
        self.num_heads, self.num_registers, self.pos_embed_kind = num_heads, num_registers, pos_embed
        self.num_prefix_tokens = int(class_token) + num_registers
        self.reference_grid = (height // patch_size, width // patch_size)
        num_patches = self.reference_grid[0] * self.reference_grid[1]

        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(in_chans, embed_dim, patch_size, patch_size)})
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, num_registers, embed_dim)) if num_registers else None
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.empty(1, num_patches, embed_dim)) if pos_embed == "learned" else None
        # Derived from the arguments, so they follow the device but stay out of checkpoints.
        sincos = sincos_positions(self.reference_grid, embed_dim)[None] if pos_embed == "sincos" else None
        angles = rope_angles(self.reference_grid, embed_dim // num_heads) if pos_embed == "rope" else None
        self.register_buffer("sincos", sincos, persistent=False)
        self.register_buffer("angles", angles, persistent=False)
        rates = [drop_path * index / max(depth - 1, 1) for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias, init_values, rate, norm_eps) for rate in rates
        )
        self.norm = nn.LayerNorm(embed_dim, eps=norm_eps)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as at the start."""
        for parameter in (self.cls_token, self.reg_token, self.mask_token, self.pos_embed):
            if parameter is not None:
                nn.init.trunc_normal_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """In training keep only each block's input and compute the rest again backward; timm's name for the switch."""
        self.grad_checkpointing = enable

    def positions(self, grid: tuple[int, int]) -> Tensor | None:
        """The (1, h * w, D) table added to the patch embeddings for this grid; None for "rope" and "none"."""
        if self.pos_embed is not None:
            return resize_positions(self.pos_embed, self.reference_grid, grid)
        if self.sincos is None or grid == self.reference_grid:
            return self.sincos
        return sincos_positions(grid, self.embed_dim, self.reference_grid, self.sincos.device)[None]

    def forward(
        self,
        x: Tensor,
        *,
        ids_keep: Tensor | None = None,
        mask: Tensor | None = None,
        attn_mask: AttentionMask = None,
        return_layers: bool = False,
        return_attention: bool | Sequence[int] = False,
        return_mlp: bool = False,
    ) -> Tokens:
        """(B, C, H, W) float images -> Tokens.

        ids_keep (B, M) int64: patches to process, in this order; the others are never read. Positions are those
        of the whole grid.
        mask (B, N) bool over the whole grid: True replaces the patch by the learned mask token (its position stays).
        attn_mask: "causal", or (L, L) or (B, 1, L, L) over the L tokens [class, registers, kept patches]; bool with
        True = may attend, or floating point added to the scores. Under "causal" the class token sees only itself.
        return_attention: True for every block, or a sequence of block indices. Exact, recomputed in float32.
        return_mlp: also what each block's MLP adds to its sequence, before it is added.
        Raises TypeError for images that are not floating point, ValueError for anything that does not fit.
        """
        grid = self._check_images(x)
        batch, num_patches = x.shape[0], grid[0] * grid[1]
        _check_ids(ids_keep, batch, num_patches)
        _check_mask(mask, batch, num_patches)
        kept = num_patches if ids_keep is None else ids_keep.shape[1]
        check_attention_mask(attn_mask, batch, self.num_heads, self.num_prefix_tokens + kept)
        wanted = wanted_layers(return_attention, len(self.blocks))

        sequence, angles = self._embed(x, grid, ids_keep, mask)
        layers, attentions, mlp_outputs = [sequence], {}, []
        for index, block in enumerate(self.blocks):
            inputs = sequence, angles, attn_mask, index in wanted, return_mlp
            again = self.grad_checkpointing and self.training and torch.is_grad_enabled()
            sequence, weights, *branch = checkpoint(block, *inputs, use_reentrant=False) if again else block(*inputs)
            mlp_outputs += branch
            if index in wanted:
                attentions[index] = weights
            if return_layers:
                layers.append(sequence)
        normed = self.norm(sequence)
        patch_tokens = normed[:, self.num_prefix_tokens :]
        return Tokens(
            cls_token=patch_tokens.mean(dim=1) if self.cls_token is None else normed[:, 0],
            patch_tokens=patch_tokens,
            grid=grid,
            register_tokens=normed[:, int(self.cls_token is not None) : self.num_prefix_tokens]
            if self.num_registers
            else None,
            layers=layers if return_layers else None,
            attentions=[attentions[index] for index in wanted] if wanted else None,
            mlp_outputs=mlp_outputs if return_mlp else None,
            num_prefix_tokens=self.num_prefix_tokens,
        )

    def _embed(
        self, x: Tensor, grid: tuple[int, int], ids_keep: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        batch, channels = x.shape[:2]
        projection, side = self.patch_embed["proj"], self.patch_size
        pixels = x.reshape(batch, channels, grid[0], side, grid[1], side).permute(0, 2, 4, 1, 3, 5)
        pixels = pixels.reshape(batch, grid[0] * grid[1], channels * side * side)
        positions, angles = self.positions(grid), self.angles
        if mask is None:
            # A zero multiple keeps the mask token in the graph: DDP waits for a gradient from every parameter.
            positions = 0.0 * self.mask_token if positions is None else positions + 0.0 * self.mask_token
        if angles is not None and grid != self.reference_grid:
            angles = rope_angles(grid, self.embed_dim // self.num_heads, self.reference_grid, angles.device)
        if ids_keep is not None:
            # Dropping before the projection: hidden patches cost nothing.
            pixels = _take(pixels, ids_keep)
            positions = None if positions is None else _take(positions.expand(batch, grid[0] * grid[1], -1), ids_keep)
            angles = None if angles is None else angles[ids_keep]
            mask = None if mask is None else mask.gather(1, ids_keep)
        patches = F.linear(pixels, projection.weight.flatten(1), projection.bias)
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        if positions is not None:
            patches = patches + positions
        prefix = [token.expand(batch, -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        return torch.cat([*prefix, patches], dim=1) if prefix else patches, angles

    def _check_images(self, x: Tensor) -> tuple[int, int]:
        check_rank("x", x, 4)
        check_float("x", x)
        batch, channels, height, width = x.shape
        require(batch >= 1, f"x: expected at least one image, got shape {tuple(x.shape)}")
        require(channels == self.in_chans, f"x: expected {self.in_chans} channels, got shape {tuple(x.shape)}")
        require(
            height >= self.patch_size and width >= self.patch_size
            and height % self.patch_size == 0 and width % self.patch_size == 0,
            f"x: expected height and width to be multiples of patch_size {self.patch_size}, got {(height, width)}",
        )
        return height // self.patch_size, width // self.patch_size

    def load_timm(self, source: nn.Module | Mapping[str, Tensor]) -> VisionTransformer:
        """Load a timm ViT of the same shape (model or state dict) and return self; see backbones.timm_vit."""
        from sslcore.backbones.timm_vit import load_timm_weights

        load_timm_weights(self, source)
        return self


def _take(x: Tensor, ids: Tensor) -> Tensor:
    return x.gather(1, ids[..., None].expand(-1, -1, x.shape[-1]))


def _check_ids(ids_keep: Tensor | None, batch: int, num_patches: int) -> None:
    if ids_keep is None:
        return
    check_rank("ids_keep", ids_keep, 2)
    if ids_keep.dtype != torch.int64:
        raise TypeError(f"ids_keep: expected int64 indices, got {ids_keep.dtype}")
    require(
        ids_keep.shape[0] == batch and ids_keep.shape[1] >= 1,
        f"ids_keep: expected shape ({batch}, M >= 1), got {tuple(ids_keep.shape)}",
    )
    if can_read(ids_keep):  # elsewhere the gather itself fails
        low, high = int(ids_keep.min()), int(ids_keep.max())
        fits = 0 <= low and high < num_patches
        require(fits, f"ids_keep: expected indices in [0, {num_patches}), got {low} to {high}")


def _check_mask(mask: Tensor | None, batch: int, num_patches: int) -> None:
    if mask is None:
        return
    check_tensor("mask", mask)
    if mask.dtype != torch.bool:
        raise TypeError(f"mask: expected bool (True = hidden), got {mask.dtype}")
    require(
        tuple(mask.shape) == (batch, num_patches),
        f"mask: expected shape ({batch}, {num_patches}), got {tuple(mask.shape)}",
    )
