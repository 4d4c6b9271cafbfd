"""Reversed attention: every token sends one message to the others, instead of gathering one from them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslcore.backbones.attention import Attention, AttentionMask, attention_weights
from sslcore.backbones.positions import rotate
from sslcore.validate import check_positive, check_rank, require


def reversed_weights(attention: Tensor, selector: Tensor, message: Tensor) -> Tensor:
    """What each token receives from each other one, head by head.

        for each sender i, head h, receiver j:
            sent[h, j, i] = attention[h, i, j] * selector[i, h] * message[i]

    attention: (B, H, L, L), rows sum to 1: how sender i splits its message over receivers. selector: (B, L, H), rows
    sum to 1: how i splits it over heads. message: (B, L) in (0, 1]: how much i sends at all.
    Returns (B, H, L, L), entry [j, i] from i to j. Nothing is lost on the way: sent.sum over h and j = message[i].
    Raises ValueError for shapes that do not fit.
    Source: DependencyViT (arXiv 2304.03282), figure 2: the transpose of the softmax weights, with head selector and
    message controller imposed.
    """
    check_rank("attention", attention, 4)
    batch, heads, length, keys = attention.shape
    require(length == keys, f"attention: expected L x L, got {tuple(attention.shape)}")
    for name, given, shape in (("selector", selector, (batch, length, heads)), ("message", message, (batch, length))):
        require(tuple(given.shape) == shape, f"{name}: expected {shape}, got {tuple(given.shape)}")
    share = (selector * message[..., None]).transpose(1, 2)[..., None]  # (B, H, L, 1), one number a sender
    return (attention * share).transpose(-2, -1)


class HeadSelector(nn.Module):
    """For each token, one distribution over heads: softmax(x W / temperature). (B, L, D) -> (B, L, H), float32."""

    def __init__(self, dim: int, num_heads: int, temperature: float = 0.1):
        super().__init__()
        check_positive("temperature", temperature)
        self.temperature = temperature
        self.score = nn.Linear(dim, num_heads, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.score(x).float() / self.temperature).softmax(dim=-1)


class MessageController(nn.Module):
    """For each token, the share of its message that it goes on sending: (B, L, D) -> (B, L) in (0, 1), float32.

    gate_bias: where the sigmoid starts. At 0 each block would halve the message of every token, and after twelve blocks
    nobody would send anything; at 3 a block keeps 95 %.
    """

    def __init__(self, dim: int, gate_bias: float = 3.0):
        super().__init__()
        self.gate_bias = gate_bias
        self.mlp = nn.Sequential(nn.Linear(dim, max(dim // 2, 1)), nn.GELU(), nn.Linear(max(dim // 2, 1), 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Open the gate again."""
        for layer in (self.mlp[0], self.mlp[2]):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.constant_(self.mlp[2].bias, self.gate_bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)[..., 0].float().sigmoid()


class Sent(NamedTuple):
    """One round of messages.

    out: (B, L, D). attention: (B, H, L, L), rows = senders, sum 1. dependency: (B, L, L), entry [j, i] what j receives
    from i, summed over heads. message: (B, L), what each token still had to send.
    """

    out: Tensor
    attention: Tensor
    dependency: Tensor
    message: Tensor


class ReversedAttention(Attention):
    """Attention with the arrows turned round; the parameters of `Attention` and, on request, two small parts more.

    selector=False splits every message evenly over heads; controller=False lets every token send all of it.
    reverse=False is ordinary attention, kept as the control: `out` is Attention's, `dependency` is the transpose of its
    weights, averaged over heads, and neither part exists.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        qkv_bias: bool = True,
        *,
        reverse: bool = True,
        selector: bool = True,
        controller: bool = True,
        temperature: float = 0.1,
        gate_bias: float = 3.0,
    ):
        super().__init__(dim, num_heads, qkv_bias)
        self.reverse = reverse
        self.selector = HeadSelector(dim, num_heads, temperature) if reverse and selector else None
        self.controller = MessageController(dim, gate_bias) if reverse and controller else None

    def send(
        self, x: Tensor, message: Tensor | None = None, angles: Tensor | None = None, attn_mask: AttentionMask = None
    ) -> Sent:
        """(B, L, D) -> Sent. message: (B, L) left over from the block before; None for a full one."""
        batch, length, dim = x.shape
        message = x.new_ones(batch, length, dtype=torch.float32) if message is None else message
        qkv = self.qkv(x).reshape(batch, length, 3, self.num_heads, dim // self.num_heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        attention = attention_weights(query, key, attn_mask)
        if self.controller is not None:
            message = message * self.controller(x)
        if self.selector is None:
            selector = attention.new_full((1, 1, 1), 1 / self.num_heads).expand(batch, length, self.num_heads)
        else:
            selector = self.selector(x)
        sent = reversed_weights(attention, selector, message)
        weights = sent if self.reverse else attention
        out = (weights.to(value.dtype) @ value).transpose(1, 2).reshape(batch, length, dim)
        return Sent(self.proj(out), attention, sent.sum(dim=1), message)

    def forward(
        self, x: Tensor, angles: Tensor | None, attn_mask: AttentionMask, return_attention: bool
    ) -> tuple[Tensor, Tensor | None]:
        """As Attention.forward, every message full at the start: put it in the place of any block's `attn`."""
        sent = self.send(x, None, angles, attn_mask)
        return sent.out, sent.attention if return_attention else None
