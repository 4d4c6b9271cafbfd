"""Transformer blocks whose attention can be shown without giving up the fused kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones.positions import rotate
from sslcore.backbones.tokens import can_read
from sslcore.validate import check_rank, check_same_shape, check_tensor, require

AttentionMask = Tensor | str | None


def attention_weights(query: Tensor, key: Tensor, attn_mask: AttentionMask = None) -> Tensor:
    """Exact softmax weights (B, H, L, L) in float32 for query and key (B, H, L, d).

    softmax(query key' / sqrt(d) + mask): what the fused kernel computes but never stores. `attn_mask` as in
    VisionTransformer.forward. Runs in float32 also under autocast.
    Raises ValueError for other ranks, unequal shapes, or a mask by an unknown name.
    """
    check_rank("query", query, 4)
    check_same_shape("query", query, "key", key)
    named = not isinstance(attn_mask, str) or attn_mask == "causal"
    require(named, f'attn_mask: expected a tensor or "causal", got {attn_mask!r}')
    with torch.autocast(query.device.type, enabled=False):
        scores = (query.float() * query.shape[-1] ** -0.5) @ key.float().transpose(-2, -1)
        if isinstance(attn_mask, str):
            attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                scores = scores.masked_fill(~attn_mask, float("-inf"))
            else:
                scores = scores + attn_mask.float()
        return scores.softmax(dim=-1)


def check_attention_mask(attn_mask: AttentionMask, batch: int, num_heads: int, length: int) -> None:
    """Raise unless attn_mask is None, "causal", (L, L) or (B or 1, H or 1, L, L), and leaves every query some key.

    L counts every token in the sequence: class token, registers and (kept) patches. The check for queries without
    a key reads values, so it runs on CPU tensors only, outside torch.compile.
    """
    if attn_mask is None:
        return
    if isinstance(attn_mask, str):
        require(attn_mask == "causal", f'attn_mask: expected a tensor or "causal", got {attn_mask!r}')
        return
    check_tensor("attn_mask", attn_mask)
    if attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise TypeError(f"attn_mask: expected bool (True = may attend) or float (added), got {attn_mask.dtype}")
    shape = tuple(attn_mask.shape)
    fits = shape == (length, length) or (
        len(shape) == 4 and shape[0] in (1, batch) and shape[1] in (1, num_heads) and shape[2:] == (length, length)
    )
    require(fits, f"attn_mask: expected ({length}, {length}) or ({batch}, 1, {length}, {length}), got {shape}")
    if can_read(attn_mask):
        open_keys = attn_mask if attn_mask.dtype == torch.bool else attn_mask > float("-inf")
        require(bool(open_keys.any(dim=-1).all()), "attn_mask: expected a key for every query, got an empty row")


class Attention(nn.Module):
    """Multi-head self-attention, parameters named as in timm. (B, L, D) -> (B, L, D)."""

    def __init__(self, dim: int, num_heads: int, qkv_bias: bool = True):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def forward(
        self, x: Tensor, angles: Tensor | None, attn_mask: AttentionMask, return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        causal = isinstance(attn_mask, str)
        bias = None if causal or attn_mask is None else attn_mask
        if bias is not None and bias.dtype != torch.bool:
            bias = bias.to(query.dtype)
        out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=causal)
        out = self.proj(out.transpose(1, 2).reshape(batch, length, dim))
        return out, attention_weights(query, key, attn_mask) if return_attention else None


class Mlp(nn.Module):
    """Two linear layers with GELU between, parameters named as in timm."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """A learned gain per channel on a residual branch, started small (CaiT, arXiv 2103.17239)."""

    def __init__(self, dim: int, init_value: float):
        super().__init__()
        self.init_value = float(init_value)
        self.gamma = nn.Parameter(torch.full((dim,), self.init_value))

    def reset_parameters(self) -> None:
        """Back to the small start."""
        nn.init.constant_(self.gamma, self.init_value)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class DropPath(nn.Module):
    """Drop a residual branch for whole samples with `probability`, rescaling the rest (arXiv 1603.09382)."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0.0:
            return x
        keep = 1.0 - self.probability
        return x * (x.new_empty(x.shape[0], 1, 1).bernoulli_(keep) / keep)


class Block(nn.Module):
    """Pre-norm transformer block: attention, then MLP, each behind optional layer scale and drop path."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        init_values: float | None = None,
        drop_path: float = 0.0,
        norm_eps: float = 1e-6,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, num_heads, qkv_bias)
        self.ls1 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path1 = DropPath(drop_path) if drop_path else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if init_values is None else LayerScale(dim, init_values)
        self.drop_path2 = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None = None,
        attn_mask: AttentionMask = None,
        return_attention: bool = False,
        return_mlp: bool = False,
    ) -> tuple[Tensor, ...]:
        """(B, L, D) -> the new sequence and its attention (B, H, L, L) or None; see rotate for `angles`.

        return_mlp: a third entry, what the MLP gives before layer scale and before it is added, (B, L, D).
        """
        mixed, weights = self.attn(self.norm1(x), angles, attn_mask, return_attention)
        x = x + self.drop_path1(self.ls1(mixed))
        branch = self.mlp(self.norm2(x))
        x = x + self.drop_path2(self.ls2(branch))
        return (x, weights, branch) if return_mlp else (x, weights)
