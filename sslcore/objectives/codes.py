"""Discrete codes: predict the code of a hidden patch, and train a tokenizer that gives the codes."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from sslcore.objectives.masked import take_hidden
from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import (
    check_finite,
    check_float,
    check_mask,
    check_positive,
    check_rank,
    check_same_device,
    check_same_shape,
    require,
    values_are_checked,
)


@without_autocast
def masked_code_loss(logits: Tensor, codes: Tensor, mask: Tensor) -> Tensor:
    """BEiT: cross-entropy of the code of each hidden patch, averaged over all hidden patches of the batch.

        return mean(-log_softmax(logits[b, n])[codes[b, n]] for b, n where mask[b, n])

    logits: (B, N, V) floating point, a score for each of V codes; or only the hidden patches, (B, H, V) in rising order
    of patch, where every image hides H. codes: (B, N) int64 in 0..V-1, given by a frozen tokenizer. mask: (B, N)
    bool, True = hidden; visible patches do not count. No smoothing, no temperature.
    Returns a scalar; equal logits cost ln V. Raises ValueError for shapes that do not fit, codes out of range, an empty
    mask or NaN; TypeError for codes that are not int64 or a mask that is not boolean.
    Source: Bao et al. 2021 (BEiT), equation 2 and section 2.3.
    """
    check_rank("logits", logits, 3)
    check_float("logits", logits)
    check_rank("codes", codes, 2)
    if codes.dtype != torch.int64:
        raise TypeError(f"codes: expected int64, got {codes.dtype}")
    batch, rows, vocabulary = logits.shape
    fits = batch == codes.shape[0] and 1 <= rows <= codes.shape[1] and vocabulary >= 2
    require(
        fits,
        f"logits: expected (B, N or H, V >= 2) for codes {tuple(codes.shape)}, got {tuple(logits.shape)}",
    )
    check_finite("logits", logits)
    check_mask("mask", mask, tuple(codes.shape))
    check_same_device("logits", logits, "codes", codes)
    check_same_device("logits", logits, "mask", mask)
    if values_are_checked(codes):
        low, high = int(codes.min()), int(codes.max())
        require(0 <= low and high < vocabulary, f"codes: expected 0 to {vocabulary - 1}, got {low} to {high}")
    logits = full_precision(logits)
    if rows < codes.shape[1]:
        wanted = take_hidden(codes[..., None], mask, rows)[..., 0]
        return F.cross_entropy(logits.flatten(0, 1), wanted.flatten())
    cost = F.cross_entropy(logits.mT, codes, reduction="none")
    return (cost * mask).sum() / mask.sum()


@without_autocast
def gumbel_softmax(logits: Tensor, uniform: Tensor, temperature: float | Tensor, hard: bool = False) -> Tensor:
    """A soft draw of one code from softmax(logits): as the temperature falls it tends to a one-hot draw.

        noise = -log(-log(uniform))
        soft = softmax((logits + noise) / temperature)
        return one_hot(argmax(soft)) + soft - soft.detach() if hard else soft

    logits: (..., V) floating point. uniform: the same shape, numbers in [0, 1]; the ends are moved inside. temperature
    above 0, a number or a tensor with one. hard: a one-hot value with the gradient of the soft one (straight-through).
    Returns (..., V) rows that sum to 1. The argmax is an exact draw from softmax(logits) at any temperature.
    Raises ValueError for shapes that differ, V < 2, a temperature that is not above 0 or NaN; TypeError for integers.
    Source: Jang et al. 2017, equation 2; Maddison et al. 2017.
    """
    check_float("logits", logits)
    check_float("uniform", uniform)
    check_same_shape("logits", logits, "uniform", uniform)
    require(logits.ndim >= 1 and logits.shape[-1] >= 2, f"logits: expected (..., V >= 2), got {tuple(logits.shape)}")
    if not isinstance(temperature, Tensor) or values_are_checked(temperature):
        check_positive("temperature", float(temperature))
    check_finite("logits", logits)
    logits, uniform = full_precision(logits), full_precision(uniform)
    tiny, eps = torch.finfo(uniform.dtype).tiny, torch.finfo(uniform.dtype).eps
    noise = -torch.log(-torch.log(uniform.clamp(tiny, 1 - eps)))
    soft = F.softmax((logits + noise) / temperature, dim=-1)
    if not hard:
        return soft
    return torch.zeros_like(soft).scatter_(-1, soft.argmax(-1, keepdim=True), 1.0) + soft - soft.detach()


class DVAETerms(NamedTuple):
    """total = reconstruction + beta * kl."""

    total: Tensor
    reconstruction: Tensor
    kl: Tensor


@without_autocast
def dvae_loss(reconstruction: Tensor, images: Tensor, logits: Tensor, beta: float | Tensor = 0.0) -> DVAETerms:
    """Discrete VAE: squared error of the picture, plus beta times how far the codes are from a fair choice among all.

        q = softmax(logits[b, n])
        kl[b, n] = sum(q * log(q * V)) = log V - entropy(q)
        return mean((reconstruction - images) ** 2) + beta * mean(kl)

    reconstruction, images: (B, C, H, W) floating point, equal shapes; no gradient reaches images. logits: (B, N, V),
    the encoder's scores without noise. beta >= 0: the weight of one position's kl against the mean error of a pixel;
    a sum over pixels and positions, the evidence bound itself, weighs kl differently.
    kl is 0 for a uniform q and log V for a sure one. Returns DVAETerms. Raises ValueError for shapes that do not fit, a
    negative beta or NaN; TypeError for integers.
    Source: Ramesh et al. 2021 (DALL-E), section 2.1, with a squared error in place of its likelihood.
    """
    check_rank("images", images, 4)
    check_float("images", images)
    check_float("reconstruction", reconstruction)
    check_same_shape("reconstruction", reconstruction, "images", images)
    check_rank("logits", logits, 3)
    check_float("logits", logits)
    fits = logits.shape[0] == images.shape[0] and logits.shape[1] >= 1 and logits.shape[2] >= 2
    require(fits, f"logits: expected ({images.shape[0]}, N >= 1, V >= 2), got {tuple(logits.shape)}")
    if not isinstance(beta, Tensor) or values_are_checked(beta):
        require(0 <= float(beta) < math.inf, f"beta: expected a finite number of 0 or more, got {float(beta)}")
    for name, tensor in (("reconstruction", reconstruction), ("images", images), ("logits", logits)):
        check_finite(name, tensor)
    error = (full_precision(reconstruction) - full_precision(images).detach()).square().mean()
    log_q = F.log_softmax(full_precision(logits), dim=2)
    kl = (log_q.exp() * (log_q + math.log(logits.shape[2]))).sum(2).mean()
    return DVAETerms(error + beta * kl, error, kl)
