"""Masked patch selection: which of the candidates is the missing patch?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_positive, check_rank, check_same_device, require


@without_autocast
def patch_selection_loss(queries: Tensor, keys: Tensor, scale: float = 1.0) -> Tensor:
    """Multiple choice: question t is answered by candidate t, all candidates are patches of the same image.

        for b, t in images, questions:
            logits = [scale * queries[b, t] @ keys[b, j] for j in range(K)]
            losses[b, t] = -logits[t] + log(sum(exp(logits)))
        return mean(losses)

    queries: (B, T, D) floating point, what is expected at each hidden place. keys: (B, K, D), K >= T, K >= 2:
    embeddings of the candidates; candidate t < T is the true patch of question t, the others are distractors, and
    those from T on are nobody's answer. scale > 0: 1 as in the paper; 1 / sqrt(D) keeps scores of wide embeddings
    small at the start. Vectors are not normalised. Gradients reach both: the key of one question is a distractor of the
    others.
    Returns a scalar: ln K where all scores are equal. The scores are logits; a softmax belongs only inside this loss.
    Raises ValueError for wrong rank, shapes that do not fit, a single candidate, an empty batch, NaN or scale <= 0;
    TypeError for integers. Source: Trinh et al. 2019 (Selfie, arXiv 1906.02940), pre-training objective.
    """
    for name, value in (("queries", queries), ("keys", keys)):
        check_rank(name, value, 3)
        check_float(name, value)
        check_finite(name, value)
    check_same_device("queries", queries, "keys", keys)
    check_positive("scale", scale)
    batch, questions, width = queries.shape
    require(batch >= 1 and questions >= 1 and width >= 1, f"queries: expected none empty, got {tuple(queries.shape)}")
    require(
        keys.shape[0] == batch and keys.shape[2] == width and keys.shape[1] >= max(questions, 2),
        f"keys: expected ({batch}, K >= {max(questions, 2)}, {width}), got {tuple(keys.shape)}",
    )
    logits = scale * (full_precision(queries) @ full_precision(keys).mT)
    answers = torch.arange(questions, device=logits.device).expand(batch, -1)
    return F.cross_entropy(logits.flatten(0, 1), answers.flatten())
