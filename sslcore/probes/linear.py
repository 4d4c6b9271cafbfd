"""Linear probe: multinomial logistic regression on standardised frozen features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.probes.knn import check_labelled
from sslcore.probes.solver import minimise
from sslcore.validate import check_positive, require

Labelled = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ProbeResult:
    """What a trained probe reached. accuracy: test, in [0, 1]; val_accuracy: of the chosen setting, in [0, 1];
    l2: the chosen strength; curve: strength -> validation accuracy of every setting tried."""

    accuracy: float
    val_accuracy: float
    l2: float
    curve: dict[float, float]
    weight: Tensor  # (C, D), for standardised features
    bias: Tensor  # (C,)
    mean: Tensor  # (D,)
    std: Tensor  # (D,)

    def predict(self, features: Tensor) -> Tensor:
        """Predicted class (M,) of raw features (M, D)."""
        standard = (features.to(self.weight) - self.mean) / self.std
        return (standard @ self.weight.T + self.bias).argmax(1)


def training_statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over all but the last axis; a constant dimension gets deviation 1."""
    rows = features.flatten(0, -2)
    mean, std = rows.mean(0), rows.std(0, unbiased=False)
    return mean, torch.where(std > 1e-6 * rows.abs().amax(0).clamp_min(1e-12), std, torch.ones_like(std))


def fit_logistic(features: Tensor, labels: Tensor, num_classes: int, l2: Sequence[float], max_steps: int) -> Tensor:
    """Weights (S, C, D + 1), bias last, of one regression per strength: mean cross-entropy + l2 / 2 * |W|^2.

    Pooled features of a transformer share a few strong directions, which leaves the problem so stretched that plain
    L-BFGS stops far from the minimum. So the search runs in coordinates where the curvature at the start is even in
    all directions. The objective, and with it the solution, stays the same.
    """
    count, width = features.shape
    strength = torch.tensor(list(l2), device=features.device)
    inputs = torch.cat([features, torch.ones_like(features[:, :1])], 1)
    target = F.one_hot(labels, num_classes).to(features.dtype)
    penalised = torch.ones(width + 1, device=features.device)
    penalised[-1] = 0  # the bias is free, as in scikit-learn

    spread, directions = torch.linalg.eigh(features.double().T @ features.double() / count)
    share = (num_classes - 1) / num_classes**2  # curvature of the softmax at equal probabilities
    scale = (share * spread.clamp_min(0) + strength.double()[:, None]).rsqrt()  # (S, D)
    even = torch.eye(width + 1, device=features.device).repeat(len(strength), 1, 1)
    even[:, :width, :width] = (directions * scale[:, None]).to(features.dtype)

    def objective(flat: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        weight = flat.view(-1, num_classes, width + 1) @ even[rows].mT
        # One product for all strengths: (n, D+1) @ (D+1, S*C).
        log_probability = (inputs @ weight.flatten(0, 1).T).view(count, -1, num_classes).log_softmax(-1)
        value = -(log_probability * target[:, None]).sum((0, 2)) / count
        residual = (log_probability.exp() - target[:, None]) / count
        gradient = (residual.flatten(1).T @ inputs).view_as(weight)
        kept = weight * penalised
        value = value + strength[rows] / 2 * kept.square().sum((1, 2))
        return value, ((gradient + strength[rows, None, None] * kept) @ even[rows]).flatten(1)

    start = torch.zeros(len(strength), num_classes * (width + 1), device=features.device)
    return minimise(objective, start, max_steps=max_steps).view(-1, num_classes, width + 1) @ even.mT


def linear_probe(
    train: Labelled,
    val: Labelled,
    test: Labelled,
    l2: Sequence[float] = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1),
    max_steps: int = 200,
) -> ProbeResult:
    """Logistic regression on frozen features: fit on train, strength chosen on val, reported once on test.

    train, val, test: pairs of features (N, D) float and labels (N,) class indices. Features are standardised with
    the training set's mean and deviation. All strengths are fitted in one batched full-batch L-BFGS run; strength
    l2 equals C = 1 / (l2 * N) of sklearn.linear_model.LogisticRegression. Ties on val go to the stronger penalty.
    Raises ValueError on empty, mismatched or non-finite input, missing labels, or a negative strength.
    Source: the usual linear evaluation (Zhang et al. 2016), with the choice moved from the test to a validation set.
    """
    for name, (features, labels) in (("train", train), ("val", val), ("test", test)):
        check_labelled(name, features, labels)
        width = features.shape[1]
        require(width == train[0].shape[1], f"{name} features: expected width {train[0].shape[1]}, got {width}")
    require(len(l2) > 0, "l2: expected at least one strength, got none")
    require(max_steps >= 1, f"max_steps: expected at least 1, got {max_steps}")
    for strength in l2:
        check_positive("l2", strength)
    device = train[0].device
    train_labels = train[1].to(device).long()
    num_classes = int(train_labels.max()) + 1
    mean, std = training_statistics(train[0].float())
    weights = fit_logistic((train[0].float() - mean) / std, train_labels, num_classes, l2, max_steps)

    def accuracy(split: Labelled) -> Tensor:
        standard = (split[0].to(device).float() - mean) / std
        logits = torch.einsum("nd,scd->snc", standard, weights[..., :-1]) + weights[:, None, :, -1]
        return (logits.argmax(-1) == split[1].to(device)).float().mean(1)

    val_accuracy = accuracy(val).tolist()
    best = max(range(len(l2)), key=lambda index: (val_accuracy[index], l2[index]))
    return ProbeResult(
        accuracy=float(accuracy(test)[best]),
        val_accuracy=val_accuracy[best],
        l2=float(l2[best]),
        curve=dict(zip(map(float, l2), val_accuracy, strict=True)),
        weight=weights[best, :, :-1],
        bias=weights[best, :, -1],
        mean=mean,
        std=std,
    )
