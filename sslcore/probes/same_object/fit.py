"""Training of same-object probes: standardise, fit on train, keep the epoch that is best on val."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.probes.linear import training_statistics
from sslcore.probes.same_object.metrics import auroc
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.probe import SameObjectProbe
from sslcore.validate import check_finite, check_float, check_rank, require

# Default learning rates times the width: wide features need small steps, or their noise is learnt by heart.
RATES = {"additive": 0.6, "diagonal": 0.6, "quadratic": 0.6, "lowrank": 0.2}
CLIP = 5.0  # standard deviations; a few activations of large nets lie far outside


def used_tokens(features: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor, Pairs]:
    """Only the images and tokens that occur in pairs: features (S, M, T, d), which (M, T), pairs numbered anew."""
    num_images, num_tokens = features.shape[1:3]
    used = torch.zeros(num_images, num_tokens, dtype=torch.bool, device=features.device)
    used[pairs.image, pairs.first] = True
    used[pairs.image, pairs.second] = True
    rows = used.any(1)
    used, new_image = used[rows], rows.long().cumsum(0) - 1
    place = used.long().cumsum(1) - 1
    most = int(used.sum(1).max())
    index = (~used).long().argsort(dim=1, stable=True)[:, :most]
    image = new_image[pairs.image]
    gathered = features[:, rows.nonzero()[:, 0, None], index].float()
    check_finite("features", gathered)
    renumbered = Pairs(image, place[image, pairs.first], place[image, pairs.second], pairs.same, pairs.grid)
    return gathered, used.gather(1, index), renumbered


def check_features(name: str, features: Tensor, pairs: Pairs) -> None:
    """Raise unless features is a finite float (S, images, tokens, d) that the pairs can index."""
    check_rank(f"{name} features", features, 4)
    check_float(f"{name} features", features)
    require(len(pairs) > 0, f"{name} pairs: expected at least one, got none")
    tokens = pairs.grid[0] * pairs.grid[1]
    fits = features.shape[2] == tokens and int(pairs.image.max()) < features.shape[1]
    require(fits, f"{name} features: expected pairs' images and {tokens} tokens each, got {tuple(features.shape)}")


def pair_logits(probe: SameObjectProbe, features: Tensor, pairs: Pairs, chunk: int = 64) -> Tensor:
    """Logits (S, P) of pairs for standardised features (S, images, tokens, d), a chunk of images at a time."""
    found = []
    starts = torch.arange(0, features.shape[1] + chunk, chunk, device=pairs.image.device)
    bounds = torch.searchsorted(pairs.image, starts)
    for number, (begin, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        if end > begin:
            start = number * chunk
            columns = pairs.image[begin:end] - start, pairs.first[begin:end], pairs.second[begin:end]
            found.append(probe(features[:, start : start + chunk], *columns))
    return torch.cat(found, 1)


class FittedProbe:
    """A trained probe with its training statistics; `score` takes raw features."""

    def __init__(self, probe: SameObjectProbe, mean: Tensor, std: Tensor, val_auroc: Tensor) -> None:
        self.probe, self.mean, self.std, self.val_auroc = probe, mean, std, val_auroc

    def standardise(self, features: Tensor) -> Tensor:
        """Features (S, M, T, d) with the training mean and deviation, clipped at +-5."""
        return ((features - self.mean) / self.std).clamp_(-CLIP, CLIP)

    @torch.no_grad()
    def score(self, features: Tensor, pairs: Pairs) -> Tensor:
        """Logits (S, P) of pairs of raw features (S, images, tokens, d)."""
        check_features("test", features, pairs)
        compact, _, renumbered = used_tokens(features, pairs)
        return pair_logits(self.probe, self.standardise(compact), renumbered)


@torch.enable_grad()  # a callback of the training loop runs without gradients
def same_object_probe(
    train: tuple[Tensor, Pairs],
    val: tuple[Tensor, Pairs],
    kind: str = "lowrank",
    rank: int = 32,
    epochs: int = 10,
    lr: float | None = None,
    weight_decay: float = 0.1,
    batch_images: int = 16,
    seed: int = 0,
) -> FittedProbe:
    """Fit S probes at once (one for each leading entry of the features) with binary cross-entropy on pairs.

    train, val: (features (S, images, tokens, d), Pairs). Images are the mini-batches; all S probes see the same
    ones, and since their parameters are apart, each ends where it would have ended alone. Adam with decoupled
    weight decay, learning rate (None: RATES / width) falling linearly to 0; for every probe the epoch with
    the best val AUROC is kept. Returns a FittedProbe; its val_auroc is (S,).
    Raises ValueError on shapes that do not fit or non-finite features.
    """
    for name, (features, pairs) in (("train", train), ("val", val)):
        check_features(name, features, pairs)
    compact, which, pairs = used_tokens(train[0], train[1])
    val_compact, _, val_pairs = used_tokens(val[0], val[1])
    rows = compact[:, which]
    statistics = [training_statistics(layer) for layer in rows]
    mean, std = (torch.stack(column)[:, None, None] for column in zip(*statistics, strict=True))
    count, num_images, _, width = compact.shape
    probe = SameObjectProbe(kind, width, count, rank, seed).to(compact.device)
    fitted = FittedProbe(probe, mean, std, torch.full((count,), -1.0))
    inputs, val_inputs = fitted.standardise(compact), fitted.standardise(val_compact)
    bounds = torch.searchsorted(pairs.image, torch.arange(num_images + 1, device=pairs.image.device)).tolist()
    target = pairs.same.float()
    lr = RATES[kind] / width if lr is None else lr
    optimiser = torch.optim.AdamW(probe.parameters(), lr=lr, weight_decay=weight_decay, betas=(0.9, 0.99))
    batches = -(-num_images // batch_images)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / (epochs * batches))
    generator = torch.Generator().manual_seed(seed)
    best = {name: value.detach().clone() for name, value in probe.named_parameters()}
    for _ in range(epochs):
        for images in torch.randperm(num_images, generator=generator).split(batch_images):
            chosen = [torch.arange(bounds[image], bounds[image + 1]) for image in images.tolist()]
            local = torch.repeat_interleave(torch.tensor([len(index) for index in chosen])).to(target.device)
            index = torch.cat(chosen).to(target.device)
            logits = probe(inputs[:, images.to(inputs.device)], local, pairs.first[index], pairs.second[index])
            loss = F.binary_cross_entropy_with_logits(logits, target[index].expand_as(logits), reduction="none")
            optimiser.zero_grad()
            loss.mean(1).sum().backward()
            optimiser.step()
            schedule.step()
        with torch.no_grad():
            scores = pair_logits(probe, val_inputs, val_pairs)
        value = torch.tensor([auroc(row, val_pairs.same) for row in scores])
        better = value > fitted.val_auroc
        fitted.val_auroc = torch.where(better, value, fitted.val_auroc)
        for name, parameter in probe.named_parameters():
            best[name][better.to(parameter.device)] = parameter.detach()[better.to(parameter.device)]
    probe.load_state_dict(best)
    return fitted
