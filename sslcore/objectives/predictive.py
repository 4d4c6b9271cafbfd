"""Next-embedding prediction: a sequence model says which embedding comes next."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, check_same_shape, require


@without_autocast
def next_embedding_loss(outputs: Tensor, sequence: Tensor, stop_gradient: bool = True) -> Tensor:
    """Output i points where embedding i + 1 will lie: minus their cosine, averaged over images and places.

        target = sequence.detach() if stop_gradient else sequence
        return mean(-cosine(outputs[b, i], target[b, i + 1]) for b in range(B) for i in range(L - 1))

    outputs: (B, L, D) floating point, what the network says at each place. sequence: (B, L, D), the embeddings it read,
    class token first where there is one, then the patches in reading order. The last output and the first embedding
    are not used. stop_gradient=False is the ablation: targets may then move towards predictions.
    next_embedding_loss(z, z) is the baseline that copies the current embedding.

    Returns a scalar in [-1, 1]. Computed in float32 under autocast; a zero vector has cosine 0 with everything.
    Raises ValueError for other ranks or shapes, L < 2, an empty batch or NaN; TypeError for integers.
    Source: NEPA (arXiv 2512.16922), the training objective: shift by one, cosine, stop-gradient on the target.
    """
    for name, tensor in (("outputs", outputs), ("sequence", sequence)):
        check_rank(name, tensor, 3)
        check_float(name, tensor)
    check_same_shape("outputs", outputs, "sequence", sequence)
    batch, length, width = sequence.shape
    require(batch >= 1 and width >= 1, f"sequence: expected images and channels, got shape {(batch, length, width)}")
    require(length >= 2, f"sequence: expected at least two places, got shape {(batch, length, width)}")
    check_finite("outputs", outputs)
    check_finite("sequence", sequence)
    target = full_precision(sequence.detach() if stop_gradient else sequence)[:, 1:]
    prediction = full_precision(outputs)[:, :-1]
    return -(F.normalize(prediction, dim=2) * F.normalize(target, dim=2)).sum(dim=2).mean()
