"""Attentive probe: one learned query reads the patch tokens, then a linear layer decides."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.probes.knn import check_labelled
from sslcore.probes.linear import training_statistics
from sslcore.validate import check_positive, check_rank, require

Labelled = tuple[Tensor, Tensor]


class AttentivePool(nn.Module):
    """Cross-attention of one learned query for each head over tokens (B, N, D) -> logits (B, C)."""

    def __init__(self, width: int, num_classes: int, num_heads: int) -> None:
        super().__init__()
        require(width % num_heads == 0, f"num_heads: expected a divisor of the width {width}, got {num_heads}")
        self.query = nn.Parameter(torch.zeros(num_heads, width // num_heads))  # zero: starts as the mean of the tokens
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        # Scores and values are linear in the tokens, so the D x D products act on H rows an image, not on N: the key
        # projection moves to the query (its bias adds one number to all scores of a head, which softmax ignores), the
        # value projection behind the weighted mean (the weights sum to 1).
        heads, depth = self.query.shape
        query = torch.einsum("hd,hde->he", self.query, self.key.weight.unflatten(0, (heads, depth)))
        weights = (tokens @ query.T / depth**0.5).softmax(1)
        means = weights.transpose(1, 2) @ tokens
        pooled = torch.einsum("bhe,hde->bhd", means, self.value.weight.unflatten(0, (heads, depth))).flatten(1)
        return self.head(self.norm(pooled + self.value.bias))


@dataclass(frozen=True)
class AttentiveResult:
    """accuracy: test, in [0, 1]; val_accuracy, lr and epoch of the chosen setting; num_parameters of the probe."""

    accuracy: float
    val_accuracy: float
    lr: float
    epoch: int
    num_parameters: int
    probe: AttentivePool


def accuracy_of(probe: AttentivePool, tokens: Tensor, labels: Tensor, batch_size: int) -> float:
    """Share of images whose class the probe gets right."""
    with torch.no_grad():
        predicted = torch.cat([probe(part).argmax(1) for part in tokens.split(batch_size)])
    return float((predicted == labels).float().mean())


@torch.enable_grad()  # a callback of the training loop runs without gradients
def attentive_probe(
    train: Labelled,
    val: Labelled,
    test: Labelled,
    num_heads: int = 4,
    lrs: Sequence[float] = (1e-3, 3e-3),
    epochs: int = 10,
    batch_size: int = 128,
    weight_decay: float = 1e-2,
    seed: int = 0,
) -> AttentiveResult:
    """Train an AttentivePool on frozen tokens; learning rate and epoch chosen on val, test read once.

    train, val, test: tokens (N, T, D) and labels (N,). Tokens are standardised with training statistics. The probe
    has about 2 D^2 + D C parameters: compare it with linear_probe on the mean token and with an untrained network.
    Raises ValueError on bad shapes, non-finite tokens, missing labels, or heads that do not divide D.
    """
    for name, (tokens, labels) in (("train", train), ("val", val), ("test", test)):
        check_rank(f"{name} tokens", tokens, 3)
        check_labelled(name, tokens.flatten(1), labels)
        width = tokens.shape[2]
        require(width == train[0].shape[2], f"{name} tokens: expected width {train[0].shape[2]}, got {width}")
    require(len(lrs) > 0, "lrs: expected at least one learning rate, got none")
    check_positive("epochs", epochs)
    device = train[0].device
    mean, std = training_statistics(train[0].float())
    tokens, labels = zip(
        *(((t.to(device).float() - mean) / std, y.to(device).long()) for t, y in (train, val, test)), strict=True
    )
    best: AttentiveResult | None = None
    for lr in lrs:
        check_positive("lr", lr)
        generator = torch.Generator().manual_seed(seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            probe = AttentivePool(mean.numel(), int(labels[0].max()) + 1, num_heads).to(device)
        optimiser = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=weight_decay)
        size = sum(parameter.numel() for parameter in probe.parameters())
        for epoch in range(epochs):
            for index in torch.randperm(len(tokens[0]), generator=generator).to(device).split(batch_size):
                optimiser.zero_grad()
                F.cross_entropy(probe(tokens[0][index]), labels[0][index]).backward()
                optimiser.step()
            value = accuracy_of(probe, tokens[1], labels[1], batch_size)
            if best is None or value > best.val_accuracy:
                best = AttentiveResult(0.0, value, lr, epoch + 1, size, copy.deepcopy(probe))
    assert best is not None
    accuracy = accuracy_of(best.probe, tokens[2], labels[2], batch_size)
    return AttentiveResult(accuracy, best.val_accuracy, best.lr, best.epoch, best.num_parameters, best.probe)
