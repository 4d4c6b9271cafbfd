"""Does attention follow binding? Correlation of attention logits with same-object logits, place regressed out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslcore.probes.same_object.metrics import auroc
from sslcore.probes.same_object.pairs import Pairs, cells
from sslcore.probes.same_object.subspace import Subspace
from sslcore.validate import check_rank, require


def blocks_of(backbone: nn.Module) -> nn.ModuleList:
    """The transformer blocks of a course backbone or of a timm model behind the bridge."""
    blocks = getattr(getattr(backbone, "model", backbone), "blocks", None)
    require(blocks is not None and len(blocks) > 0, f"{type(backbone).__name__} has no transformer blocks")
    return blocks


@torch.no_grad()
def attention_logits(backbone: nn.Module, sequence: Tensor, block: int) -> Tensor:
    """Scores before the softmax of one block for the residual stream that enters it.

    sequence: (B, P + N, D), `layers[block]` of the Tokens with P prefix tokens -> (B, H, N, N) between patches, rows =
    queries. Networks that turn queries and keys (rope) are refused: their scores need the angles.
    """
    check_rank("sequence", sequence, 3)
    layer = blocks_of(backbone)[block]
    require(getattr(backbone, "angles", None) is None, "attention_logits: rotary positions are not supported")
    attention = layer.attn
    mixed = attention.qkv(layer.norm1(sequence)).unflatten(-1, (3, attention.num_heads, -1))
    query, key, _ = mixed.permute(2, 0, 3, 1, 4).unbind(0)
    query, key = (getattr(attention, f"{n}_norm", nn.Identity())(x) for n, x in (("q", query), ("k", key)))
    patches = slice(backbone.num_prefix_tokens, None)
    return query[:, :, patches].float() @ key[:, :, patches].float().mT * query.shape[-1] ** -0.5


def head_scores(backbone: nn.Module, sequence: Tensor, block: int, pairs: Pairs) -> Tensor:
    """Attention logits of one block for pairs, mean of both directions: (H, P). A head read as a same-object score."""
    logits = attention_logits(backbone, sequence, block)
    return ((logits + logits.mT) / 2)[pairs.image, :, pairs.first, pairs.second].T


class Correlation(NamedTuple):
    """Partial correlation (R,) and its 95 % interval over images, low and high (R,)."""

    value: Tensor
    low: Tensor
    high: Tensor


def within(values: Tensor, cell: Tensor) -> Tensor:
    """values (R, P) minus the mean of their cell."""
    count = torch.bincount(cell).clamp_min(1)
    sums = values.new_zeros(len(values), len(count)).index_add_(1, cell, values)
    return values - (sums / count)[:, cell]


def partial_correlation(
    first: Tensor,
    second: Tensor,
    pairs: Pairs,
    covariates: Tensor | None = None,
    match: str = "displacement",
    resamples: int = 1000,
    seed: int = 0,
) -> Correlation:
    """Pearson correlation of first (R, P) with second (P,) or (R, P), with where the tokens lie taken out of both.

    Every value loses the mean of the pairs at its displacement (`match`: see sample_pairs; "position" takes the mean of
    the very same two places), which removes any function of it, not only a linear one. covariates (C, P), such as the
    cosine of what the two tokens look like, lose theirs too and are then regressed out of both sides.
    The interval resamples images. Raises ValueError on shapes that do not fit.
    """
    second = second.expand(len(first), -1) if second.ndim == 1 else second
    require(first.shape == second.shape, f"second: expected shape {tuple(first.shape)}, got {tuple(second.shape)}")
    require(first.shape[1] == len(pairs), f"first: expected {len(pairs)} pairs, got {first.shape[1]}")
    number = torch.unique(cells(pairs, match), return_inverse=True)[1]
    x, y = within(first.double(), number), within(second.double(), number)
    if covariates is not None:
        z = within(covariates.double().reshape(-1, len(pairs)), number)
        gram = torch.linalg.pinv(z @ z.T, hermitian=True)
        x, y = x - x @ z.T @ gram @ z, y - y @ z.T @ gram @ z
    image = torch.unique(pairs.image, return_inverse=True)[1]
    count = int(image.max()) + 1
    moments = torch.stack([x * y, x * x, y * y], 1)  # (R, 3, P)
    sums = moments.new_zeros(len(x), 3, count).index_add_(2, image, moments)
    drawn = torch.randint(count, (resamples, count), generator=torch.Generator().manual_seed(seed))
    times = torch.zeros(resamples, count, dtype=torch.float64).scatter_add_(1, drawn, torch.ones(drawn.shape).double())
    both = torch.cat([torch.ones(1, count).double(), times]).to(sums)
    xy, xx, yy = (sums @ both.T).unbind(1)  # (R, 1 + resamples)
    r = xy / (xx * yy).sqrt().clamp_min(1e-12)
    low, high = torch.quantile(r[:, 1:], torch.tensor([0.025, 0.975], dtype=r.dtype, device=r.device), dim=1)
    return Correlation(r[:, 0].float(), low.float(), high.float())


@torch.no_grad()
def attention_agreement(
    backbone: nn.Module,
    layers: Sequence[Tensor],
    scores: Tensor,
    pairs: Pairs,
    subspaces: Sequence[Subspace] | None = None,
) -> Correlation:
    """Partial correlation of every head's attention logits with the same-object logits of the tokens it reads.

    layers: residual streams (B, P + N, D), one a block: what enters block l. scores (L, P): the logits of a probe
    fitted at that layer, for these pairs. subspaces: for each layer the probe's Subspace; then the cosine of what the
    two tokens hold *outside* of it is regressed out beside displacement. A pair's attention is the
    mean of both directions, as the probe is symmetric. Returns values of shape (L * H,), layer by layer.
    """
    found = []
    for block, sequence in enumerate(layers):
        chosen = head_scores(backbone, sequence, block, pairs)
        covariates = None
        if subspaces is not None:
            tokens = sequence[:, backbone.num_prefix_tokens :]
            basis, mean, std = subspaces[block]
            rest = (tokens - mean) / std
            rest = torch.nn.functional.normalize(rest - rest @ basis @ basis.T, dim=-1)
            covariates = (rest[pairs.image, pairs.first] * rest[pairs.image, pairs.second]).sum(-1)[None]
        found.append(partial_correlation(chosen, scores[block], pairs, covariates))
    return Correlation(*(torch.cat(column) for column in zip(*found, strict=True)))


def head_aurocs(backbone: nn.Module, layers: Sequence[Tensor], pairs: Pairs, first: int = 0) -> Tensor:
    """AUROC (L, H) of every head's logits as same-object scores. layers: what enters blocks first, first + 1, ...,
    (B, P + N, D) each."""
    rows = [head_scores(backbone, sequence, first + number, pairs) for number, sequence in enumerate(layers)]
    return torch.stack([torch.tensor([auroc(head, pairs.same) for head in heads]) for heads in rows])
