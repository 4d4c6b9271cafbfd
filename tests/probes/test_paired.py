"""Differences of AUROC: the value is the plain difference, the interval is paired."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.same_object.metrics import auroc, image_auroc
from sslcore.probes.same_object.paired import auroc_difference
from sslcore.probes.same_object.pairs import Pairs


def planted() -> tuple[torch.Tensor, torch.Tensor, Pairs]:
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(60).repeat_interleave(20)
    same = torch.rand(1200, generator=generator) > 0.5
    hard = torch.randn(60, generator=generator)[image]  # some images are hard for everybody
    signal = same.float() * (1 + hard)
    noise = torch.randn(2, 1200, generator=generator)
    first, second = signal + noise[0], 0.6 * signal + 0.7 * noise[0] + 0.4 * noise[1]
    return first, second, Pairs(image, torch.zeros_like(image), torch.ones_like(image), same, (8, 8))


def test_difference_and_paired_interval():
    first, second, pairs = planted()
    value, low, high = auroc_difference(first, second, pairs)
    assert value == pytest.approx(auroc(first, pairs.same) - auroc(second, pairs.same), abs=1e-12)
    assert low < value < high
    _, (left, right) = image_auroc(first, pairs.same, pairs.image)
    assert high - low < 0.7 * (right - left)
    swapped = auroc_difference(second, first, pairs)
    assert swapped[0] == pytest.approx(-value) and swapped[1] == pytest.approx(-high, abs=1e-9)
    assert auroc_difference(first, first, pairs) == (0.0, 0.0, 0.0)


def test_bad_input_is_named():
    first, second, pairs = planted()
    with pytest.raises(ValueError, match="1200 each"):
        auroc_difference(first[:5], second, pairs)
    with pytest.raises(ValueError, match="same and different"):
        auroc_difference(first[pairs.same], second[pairs.same], pairs.take(pairs.same))
