"""Fine-tuning: how far a pre-trained network gets when all its weights go on learning from a few labels."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sslcore.data.imageset import ImageSet
from sslcore.methods.supervised import Supervised
from sslcore.probes.frozen import run_frozen
from sslcore.training.history import History
from sslcore.training.loop import fit
from sslcore.validate import require


@dataclass(frozen=True)
class FineTuned:
    """accuracy: test, in [0, 1], of the setting val chose; val_accuracy: on val; lr: the chosen one; curve: lr -> val
    accuracy of every one tried; history: loss of the chosen run; method: it, in eval mode."""

    accuracy: float
    val_accuracy: float
    lr: float
    curve: dict[float, float]
    history: History
    method: Supervised

    @property
    def seconds(self) -> float:
        """Training time of the chosen run."""
        return self.history.seconds


@torch.no_grad()
def accuracy_of(method: Supervised, data: ImageSet, batch_size: int = 256) -> float:
    """Share of images whose highest score is their label, in [0, 1]; own preprocessing, no augmentation."""
    logits = []
    for tokens in run_frozen(method.backbone, data.images, batch_size):
        logits.append(method.classifier(tokens.pooled if method.pool == "mean" else tokens.cls_token).float())
    best = torch.cat(logits).argmax(1)
    return float((best == data.labels.to(best.device)).float().mean())


def fine_tune(
    backbone: nn.Module,
    train: ImageSet,
    val: ImageSet,
    test: ImageSet,
    *,
    lr: float | Sequence[float] = (3e-4, 1e-3),
    steps: int = 100,
    batch_size: int = 64,
    pool: str = "mean",
    policy: Callable | None = None,
    seed: int = 0,
    **settings: Any,
) -> FineTuned:
    """Train a copy of the whole network, with a linear head, on train; the learning rate is chosen on val.

    backbone: left as it is. A network with fresh weights gives the from-scratch control.
    train, val, test: sets with labels; classes are counted on train. See `sslcore.data.few_labels` to thin train out.
    lr: one or several; each is a run of its own, ties on val go to the smaller. steps, batch_size: of each run; a batch
        never exceeds the number of training images.
    pool: what is classified: "mean" of the patch tokens, "cls", or "auto". policy: views, see Supervised.
    seed: head, order and views depend on it alone. settings: further arguments of `sslcore.training.fit`.
    All layers learn at one rate: no layer-wise decay, which large models use and ours did not need.
    Raises ValueError on sets without images or labels, on labels in val or test that train lacks, and as fit does.
    Source: the usual fine-tuning protocol (e.g. He et al. 2022, appendix A), scaled down.
    """
    rates = [lr] if isinstance(lr, int | float) else list(lr)
    require(len(rates) > 0, "lr: expected at least one learning rate, got none")
    for name, data in (("train", train), ("val", val), ("test", test)):
        require(len(data) > 0 and data.labels is not None, f"{name}: expected images with labels, got {data!r}")
    num_classes = int(train.labels.max()) + 1
    for name, data in (("val", val), ("test", test)):
        unseen = sorted(set(data.labels.tolist()) - set(train.labels.tolist()))
        require(not unseen, f"{name}: expected classes that occur in train, got also {unseen[:5]}")

    def run(rate: float) -> FineTuned:
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            method = Supervised(copy.deepcopy(backbone).requires_grad_(), num_classes, pool=pool, policy=policy)
        options = {"warmup": 0.1, "progress": False} | settings
        batch = min(batch_size, len(train))
        history = fit(method, train, steps=steps, batch_size=batch, lr=rate, seed=seed, **options)
        found = accuracy_of(method, val)
        return FineTuned(float("nan"), found, float(rate), {}, history, method.eval())

    best, curve = None, {}
    for rate in sorted(rates):
        candidate = run(rate)
        curve[candidate.lr] = candidate.val_accuracy
        if best is None or candidate.val_accuracy > best.val_accuracy:
            best = candidate
    accuracy = accuracy_of(best.method, test)
    return FineTuned(accuracy, best.val_accuracy, best.lr, curve, best.history, best.method)
