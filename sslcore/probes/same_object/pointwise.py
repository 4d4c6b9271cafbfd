"""Probes that look at one token at a time: its class, or a slot of its object; two tokens are "same" if they agree.

They are baselines for the pairwise probes and are scored on instances, never on classes: a class probe that is perfect
still calls twins one object, and a slot is of use only if the network numbers its objects the same way in all images.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.probes.linear import training_statistics
from sslcore.probes.same_object.pairs import Pairs
from sslcore.validate import check_finite, check_rank, require

CLIP = 5.0
COST = 5.0  # weight of both parts of the matching cost, as in the paper's code


class PointwiseProbe:
    """S linear maps from standardised tokens to C answers: weight (S, d, C), bias (S, C), statistics (S, 1, 1, d)."""

    def __init__(self, weight: Tensor, bias: Tensor, mean: Tensor, std: Tensor) -> None:
        self.weight, self.bias, self.mean, self.std = weight, bias, mean, std

    def logits(self, features: Tensor) -> Tensor:
        """Raw features (S, M, T, d) -> (S, M, T, C)."""
        standard = ((features - self.mean) / self.std).clamp(-CLIP, CLIP)
        return standard @ self.weight[:, None] + self.bias[:, None, None]

    @torch.no_grad()
    def agree(self, features: Tensor, pairs: Pairs) -> Tensor:
        """Whether both tokens of each pair get the same answer: bool (S, P)."""
        answer = self.logits(features).argmax(-1)
        return answer[:, pairs.image, pairs.first] == answer[:, pairs.image, pairs.second]

    @torch.no_grad()
    def score(self, features: Tensor, pairs: Pairs) -> Tensor:
        """Probability (S, P) that the two softmax answers agree: a graded form of `agree`, for AUROC."""
        share = self.logits(features).softmax(-1)
        return (share[:, pairs.image, pairs.first] * share[:, pairs.image, pairs.second]).sum(-1)


def matching_cost(logits: Tensor, masks: Tensor, used: Tensor) -> Tensor:
    """Cost (S, B, Q, K) of giving query q to object k: 5 x mean sigmoid cross-entropy + 5 x Dice over the used tokens.

    logits (S, B, N, Q), masks (B, N, K) in {0, 1}, used (B, N) bool.
    Dice = 1 - (2 sum(p m) + 1) / (sum p + sum m + 1), p the sigmoid of the logits.
    """
    weight = used.float()[..., None]
    masks, count = masks * weight, weight.sum(1).clamp_min(1)[:, :, None]
    entropy = (F.softplus(logits) * weight).sum(2)[..., None] - torch.einsum("sbnq,bnk->sbqk", logits, masks)
    share = logits.sigmoid() * weight
    overlap = torch.einsum("sbnq,bnk->sbqk", share, masks)
    dice = 1 - (2 * overlap + 1) / (share.sum(2)[..., None] + masks.sum(1)[:, None] + 1)
    return COST * (entropy / count + dice)


def hungarian(cost: Tensor, present: Tensor) -> Tensor:
    """Query of every object under the cheapest one-to-one assignment: cost (S, B, Q, K), present (B, K) -> (S, B, K);
    absent objects get query 0. Each (s, b) is solved on its own."""
    from scipy.optimize import linear_sum_assignment

    require(cost.shape[2] >= cost.shape[3], f"queries: expected at least {cost.shape[3]}, got {cost.shape[2]}")
    table, chosen = cost.detach().cpu().numpy(), torch.zeros(cost.shape[0], cost.shape[1], cost.shape[3]).long()
    for b, objects in enumerate(present.cpu()):
        columns = objects.nonzero()[:, 0]
        for s in range(len(table)):
            query, column = linear_sum_assignment(table[s, b][:, columns.numpy()])
            chosen[s, b, columns[torch.from_numpy(column)]] = torch.from_numpy(query)
    return chosen.to(cost.device)


def class_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Mean cross-entropy of (S, B, N, C) against classes (B, N), -1 = left out; summed over the S probes."""
    flat = target.flatten()
    rows = (flat >= 0).nonzero()[:, 0]
    losses = F.cross_entropy(
        logits.flatten(1, 2)[:, rows].transpose(1, 2), flat[rows].expand(len(logits), -1), reduction="none"
    )
    return losses.mean(1).sum()


def identity_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cost of the best assignment of queries to the objects of each image, mean over objects, summed over the probes.

    logits (S, B, N, Q), target (B, N): instance ids, 0 = background (a token of no object), -1 = left out.
    """
    count = int(target.max())
    masks = F.one_hot(target.clamp_min(0), count + 1)[..., 1:].float()
    present = masks.any(1)
    cost = matching_cost(logits, masks, target >= 0)
    query = hungarian(cost, present)
    matched = cost.gather(2, query[:, :, None])[:, :, 0]
    return ((matched * present).sum((1, 2)) / present.sum().clamp_min(1)).sum()


LOSSES = {"class": class_loss, "identity": identity_loss}


@torch.enable_grad()
def pointwise_probe(
    features: Tensor,
    target: Tensor,
    kind: str,
    num_answers: int,
    epochs: int = 10,
    lr: float = 1e-2,
    weight_decay: float = 0.1,
    batch_images: int = 16,
    seed: int = 0,
) -> PointwiseProbe:
    """Fit S pointwise probes at once on training features (S, M, T, d).

    target (M, T): for "class" the class of the token (-1 = left out); for "identity" its instance id (0 = on no object,
    -1 = left out). num_answers: classes, or queries (at least the objects of a scene; the paper takes 100).
    Identity is trained by Hungarian matching in each image. AdamW, rate falling linearly to 0.
    Raises ValueError on shapes that do not fit, an unknown kind, non-finite features.
    Source: Li et al. 2025, baselines; both are scored on instances here (their release scores class on classes).
    """
    require(kind in LOSSES, f"kind: expected one of {', '.join(LOSSES)}, got {kind!r}")
    check_rank("features", features, 4)
    check_finite("features", features)
    require(target.shape == features.shape[1:3], f"target: expected {tuple(features.shape[1:3])}, got {target.shape}")
    require(bool((target >= 0).any()), "target: expected at least one token that counts, got none")
    count, num_images, _, width = features.shape
    rows = features[:, target >= 0].float()
    statistics = [training_statistics(layer) for layer in rows]
    mean, std = (torch.stack(column)[:, None, None] for column in zip(*statistics, strict=True))
    generator = torch.Generator().manual_seed(seed)
    # Queries must differ from the start, or all of them would chase the same object.
    start = 0.02 * torch.randn(width, num_answers, generator=generator)
    weight = start.repeat(count, 1, 1).to(features.device).requires_grad_()
    bias = torch.zeros(count, num_answers, device=features.device, requires_grad=True)
    probe = PointwiseProbe(weight, bias, mean, std)
    optimiser = torch.optim.AdamW([weight, bias], lr=lr, weight_decay=weight_decay)
    total = epochs * -(-num_images // batch_images)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / total)
    for _ in range(epochs):
        for images in torch.randperm(num_images, generator=generator).to(features.device).split(batch_images):
            if not bool((target[images] > 0).any()) and kind == "identity":
                continue
            loss = LOSSES[kind](probe.logits(features[:, images].float()), target[images])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return PointwiseProbe(weight.detach(), bias.detach(), mean, std)
