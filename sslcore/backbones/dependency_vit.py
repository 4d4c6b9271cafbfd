"""A vision transformer of reversed attention: its messages, its soft dependency masks, and pruning by received mass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sslcore.backbones.attention import AttentionMask, Block, check_attention_mask
from sslcore.backbones.reversed_attention import MessageController, ReversedAttention, Sent
from sslcore.backbones.tokens import Tokens, wanted_layers
from sslcore.backbones.vit import VisionTransformer, _check_ids, _check_mask, _take
from sslcore.validate import require, unknown

RULES = ("received", "message", "random")


@dataclass
class DependencyTokens(Tokens):
    """Tokens, and who depended on whom.

    cls_token is the mean of the patch tokens weighted by their last message. messages: (B, L) of every block, not
    rising from block to block. dependencies: (B, L, L) of the blocks whose attention was asked for, entry [j, i] what
    j receives from i. kept: (B, M) numbers, in the sequence that came in, of the tokens that pruning left.
    """

    messages: list[Tensor] | None = None
    dependencies: list[Tensor] | None = None
    kept: Tensor | None = None


@dataclass(frozen=True)
class Lite:
    """Pruning on the way: after each block named in `layers` (from 0) the lowest tokens leave.

    Of N tokens the p-th pruning leaves about (1 - ratio p) N, rounded down each time. by: "received" mass (how much
    all others send to a token in this block), "message" (how much it still sends itself), or "random", the control,
    drawn anew for each image from torch's generator. The paper: layers 2, 5, 8, 11 of 12, ratio 0.16, by received mass.
    """

    layers: tuple[int, ...]
    ratio: float = 0.16
    by: str = "received"

    def __post_init__(self) -> None:
        if self.by not in RULES:
            unknown("pruning rule", self.by, RULES)
        rising = all(low < high for low, high in zip(self.layers, self.layers[1:], strict=False))
        require(rising and min(self.layers, default=0) >= 0, f"layers: expected rising numbers, got {self.layers}")
        fits = 0 <= self.ratio and self.ratio * len(self.layers) < 1
        require(fits, f"ratio: {len(self.layers)} prunings of {self.ratio} leave no token")

    def lengths(self, num_tokens: int, depth: int) -> list[int]:
        """Tokens that go into each block, and at the end those that come out of the last: depth + 1 numbers."""
        require(max(self.layers, default=0) < depth, f"layers: expected blocks below {depth}, got {self.layers}")
        counts, times = [num_tokens], 0
        for index in range(depth):
            left = counts[-1]
            if index in self.layers:
                # The small term keeps 0.68 / 0.84 * 84 at 68 where rounding errors would give 67.
                left = int(left * (1 - self.ratio * (times + 1)) / (1 - self.ratio * times) + 1e-9)
                times += 1
            counts.append(max(left, 1))
        return counts

    def choose(self, sent: Sent, count: int) -> Tensor:
        """(B, count) numbers of the tokens that stay, in rising order."""
        if self.by == "random":
            score = torch.rand_like(sent.message)
        else:
            score = sent.dependency.sum(dim=2) if self.by == "received" else sent.message
        return score.topk(count, dim=1).indices.sort(dim=1).values


class DependencyBlock(Block):
    """A transformer block whose attention hands the messages on."""

    def __init__(self, dim: int, num_heads: int, attention: dict[str, Any], **block: Any):
        super().__init__(dim, num_heads, **block)
        self.attn = ReversedAttention(dim, num_heads, block.get("qkv_bias", True), **attention)

    def step(
        self, x: Tensor, message: Tensor | None, angles: Tensor | None = None, attn_mask: AttentionMask = None
    ) -> tuple[Tensor, Sent]:
        """The new sequence (B, L, D) and the round of messages that led to it."""
        sent = self.attn.send(self.norm1(x), message, angles, attn_mask)
        x = x + self.drop_path1(self.ls1(sent.out))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))), sent


class DependencyViT(VisionTransformer):
    """VisionTransformer with reversed attention in every block, and messages that shrink from block to block.

    Takes the arguments of VisionTransformer; there is no class token and no register, because each token is a node of
    the tree. reverse, selector, controller, temperature, gate_bias: see ReversedAttention; reverse=False computes what
    VisionTransformer(class_token=False) computes, with the same weights.

    A receiver adds up what it gets, and nothing divides by how much that is: hubs grow. `init_values` (layer scale)
    keeps the start calm. Raises ValueError as VisionTransformer does, and for a class token or registers.
    Source: DependencyViT (arXiv 2304.03282). No code was released; where the paper is silent the choices are ours.
    """

    def __init__(
        self,
        img_size: int | tuple[int, int] = 64,
        patch_size: int = 8,
        in_chans: int = 3,
        embed_dim: int = 192,
        depth: int = 6,
        num_heads: int = 3,
        *,
        reverse: bool = True,
        selector: bool = True,
        controller: bool = True,
        temperature: float = 0.1,
        gate_bias: float = 3.0,
        **vit: Any,
    ):
        plain = not vit.pop("class_token", False) and not vit.get("num_registers", 0)
        require(plain, "class_token, num_registers: every token is a node of the tree; expected neither")
        super().__init__(img_size, patch_size, in_chans, embed_dim, depth, num_heads, class_token=False, **vit)
        parts = dict(reverse=reverse, selector=selector, controller=controller)
        attention = dict(parts, temperature=temperature, gate_bias=gate_bias)
        settings = {key: vit[key] for key in ("mlp_ratio", "qkv_bias", "init_values", "norm_eps") if key in vit}
        rates = [getattr(block.drop_path1, "probability", 0.0) for block in self.blocks]
        for index, rate in enumerate(rates):
            self.blocks[index] = DependencyBlock(embed_dim, num_heads, attention, **settings, drop_path=rate)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, gates open."""
        super().reset_parameters()
        for module in self.modules():
            if isinstance(module, MessageController):
                module.reset_parameters()

    def forward(
        self,
        x: Tensor,
        *,
        ids_keep: Tensor | None = None,
        mask: Tensor | None = None,
        attn_mask: AttentionMask = None,
        return_layers: bool = False,
        return_attention: bool | Sequence[int] = False,
        lite: Lite | None = None,
    ) -> DependencyTokens:
        """(B, C, H, W) float images -> DependencyTokens; arguments as VisionTransformer.forward.

        attentions have the *senders* as rows. return_attention also gives the dependencies of those blocks. lite:
        prune on the way; patch_tokens, layers and dependencies then hold the tokens left at each block.
        """
        grid = self._check_images(x)
        batch, patches = x.shape[0], grid[0] * grid[1]
        _check_ids(ids_keep, batch, patches)
        _check_mask(mask, batch, patches)
        depth, length = len(self.blocks), patches if ids_keep is None else ids_keep.shape[1]
        check_attention_mask(attn_mask, batch, self.num_heads, length)
        require(lite is None or attn_mask is None, "lite: not together with attn_mask, which counts all tokens")
        lengths = (lite or Lite(())).lengths(length, depth)
        wanted = wanted_layers(return_attention, depth)

        sequence, angles = self._embed(x, grid, ids_keep, mask)
        message, messages, layers, shown = None, [], [sequence], {}
        kept = torch.arange(length, device=x.device).expand(batch, -1) if lite is not None else None
        for index, block in enumerate(self.blocks):
            again = self.grad_checkpointing and self.training and torch.is_grad_enabled()
            inputs = sequence, message, angles, attn_mask
            sequence, sent = checkpoint(block.step, *inputs, use_reentrant=False) if again else block.step(*inputs)
            message = sent.message
            messages.append(message)
            if index in wanted:
                shown[index] = sent
            if lengths[index + 1] < lengths[index]:
                stay = lite.choose(sent, lengths[index + 1])
                sequence, message, kept = _take(sequence, stay), message.gather(1, stay), kept.gather(1, stay)
                if angles is not None:
                    angles = angles[stay] if angles.ndim == 2 else _take(angles, stay)
            if return_layers:
                layers.append(sequence)
        patch_tokens = self.norm(sequence)
        weight = (message / message.sum(dim=1, keepdim=True).clamp_min(1e-6)).to(patch_tokens.dtype)
        return DependencyTokens(
            cls_token=torch.einsum("bl,bld->bd", weight, patch_tokens),
            patch_tokens=patch_tokens,
            grid=grid,
            layers=layers if return_layers else None,
            attentions=[shown[index].attention for index in wanted] if wanted else None,
            messages=messages,
            dependencies=[shown[index].dependency for index in wanted] if wanted else None,
            kept=kept,
        )
