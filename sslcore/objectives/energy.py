"""Energy-based learning: a score that is high on real images and low on what the model takes for them."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from sslcore.objectives.precision import same_precision, without_autocast
from sslcore.validate import check_finite, check_float, check_rank, check_same_device, require


class EnergyTerms(NamedTuple):
    """total = gap + penalty; the penalty already carries its weight."""

    total: Tensor
    gap: Tensor
    penalty: Tensor


@without_autocast
def contrastive_divergence(real: Tensor, fake: Tensor, l2: float = 0.0) -> EnergyTerms:
    """Raise the score of real images, lower that of samples drawn from the model.

        gap = mean(fake) - mean(real)
        penalty = l2 * (mean(real ** 2) + mean(fake ** 2))
        return gap + penalty

    real (N,): scores f(x) of images; a score is minus an energy, and the model's density is exp(f(x)) / Z. fake (M,):
    scores of images sampled from the model, with the sampling path detached by the caller. l2 >= 0: keeps scores near
    0; without it they drift freely, since a constant added to f changes nothing. The gradient of gap is that of the
    negative log-likelihood when the samples are exact; its value is no likelihood and near 0 in a healthy run.
    Returns EnergyTerms of scalars. Raises ValueError for wrong rank, no scores, NaN, l2 < 0; TypeError for integers.
    Source: Hinton 2002, equation 4; with samples from a buffer: Du & Mordatch 2019 and Grathwohl et al. 2020 (JEM,
    arXiv 1912.03263), equation 2.
    """
    for name, value in (("real", real), ("fake", fake)):
        check_rank(name, value, 1)
        check_float(name, value)
        require(len(value) >= 1, f"{name}: expected at least one score, got none")
        check_finite(name, value)
    check_same_device("real", real, "fake", fake)
    require(0 <= l2 < float("inf"), f"l2: expected a finite number of at least 0, got {l2}")
    real, fake = same_precision(real, fake)
    gap = fake.mean() - real.mean()
    penalty = l2 * (real.square().mean() + fake.square().mean())
    return EnergyTerms(gap + penalty, gap, penalty)

