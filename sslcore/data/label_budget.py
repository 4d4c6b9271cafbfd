"""Few labels: the same number of images of every class."""

from __future__ import annotations

import torch
from torch import Tensor

from sslcore.validate import check_rank, require


def few_labels(labels: Tensor, per_class: int, seed: int = 0) -> Tensor:
    """Numbers of `per_class` images of each class, drawn with the seed; more per class contain fewer.

    labels: (N,) class indices. Returns (C * per_class,) int64 in ascending order, for `ImageSet.subset`.
    Raises ValueError where a class has fewer images.
    """
    check_rank("labels", labels, 1)
    require(per_class >= 1, f"per_class: expected at least 1, got {per_class}")
    require(len(labels) > 0, "labels: expected at least one, got none")
    labels = labels.cpu()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen = []
    for value in labels.unique().tolist():
        rows = order[labels[order] == value]
        require(len(rows) >= per_class, f"class {value}: expected at least {per_class} images, got {len(rows)}")
        chosen.append(rows[:per_class])
    return torch.cat(chosen).sort().values
