"""Weighted nearest-neighbour vote on frozen features: the probe without anything to train."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.validate import check_finite, check_float, check_positive, check_rank, require


def check_labelled(name: str, features: Tensor, labels: Tensor | None) -> None:
    """Raise unless features is a finite float (N >= 1, D) and labels a matching (N,) of class indices."""
    check_rank(f"{name} features", features, 2)
    check_float(f"{name} features", features)
    require(features.shape[0] >= 1, f"{name} features: expected at least one row, got shape {tuple(features.shape)}")
    check_finite(f"{name} features", features)
    require(labels is not None, f"{name} labels: expected (N,) class indices, got None")
    check_rank(f"{name} labels", labels, 1)
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    require(whole, f"{name} labels: expected whole numbers, got {labels.dtype}")
    count = len(features)
    require(len(labels) == count, f"{name} labels: expected {count}, one a row of features, got {len(labels)}")
    require(bool((labels >= 0).all()), f"{name} labels: expected class indices >= 0, got {int(labels.min())}")


def knn_predict(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> Tensor:
    """Class of each test row by a vote of its k nearest training rows, weighted by exp(cosine / temperature).

    train_features (N, D), train_labels (N,), test_features (M, D) -> (M,) predicted labels. The similarities are
    computed for `chunk` test rows at a time, so memory is chunk x N. k = 1 or temperature -> 0 gives the label of
    the nearest row, a large temperature the plain majority of the k.
    Raises ValueError for k outside 1..N, a temperature that is not above 0, or non-finite features.
    Source: Wu et al. 2018 (instance discrimination), settings of DINO (Caron et al. 2021).
    """
    check_labelled("train", train_features, train_labels)
    check_rank("test features", test_features, 2)
    check_finite("test features", test_features)
    widths = (train_features.shape[1], test_features.shape[1])
    require(widths[0] == widths[1], f"features: expected equal widths, got train {widths[0]} and test {widths[1]}")
    require(1 <= k <= len(train_features), f"k: expected 1 to {len(train_features)} (training rows), got {k}")
    check_positive("temperature", temperature)
    labels = train_labels.to(train_features.device).long()
    num_classes = int(labels.max()) + 1
    bank = F.normalize(train_features.float(), dim=1).T
    predictions = []
    for rows in F.normalize(test_features.to(bank.device).float(), dim=1).split(chunk):
        similarity, neighbour = (rows @ bank).topk(k, dim=1)
        # Measured from the nearest neighbour, exp cannot overflow however small the temperature is.
        weight = ((similarity - similarity[:, :1]) / temperature).exp()
        votes = torch.zeros(len(rows), num_classes, device=bank.device)
        predictions.append(votes.scatter_add_(1, labels[neighbour], weight).argmax(1))
    return torch.cat(predictions)


def knn_eval(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    k: int = 20,
    temperature: float = 0.07,
    chunk: int = 1024,
) -> float:
    """Accuracy in [0, 1] of knn_predict on (test_features (M, D), test_labels (M,)). Raises as knn_predict does."""
    check_labelled("test", test_features, test_labels)
    predicted = knn_predict(train_features, train_labels, test_features, k, temperature, chunk)
    return float((predicted == test_labels.to(predicted.device)).float().mean())
