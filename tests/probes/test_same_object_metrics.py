"""AUROC with ties and its interval over images: scikit-learn, a literal bootstrap, bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.same_object.metrics import auroc, image_auroc, pair_accuracy, unlikeness_auroc, win_table
from sslcore.probes.same_object.pairs import Pairs


def scored(images: int = 12, ties: bool = False):
    image = torch.arange(images).repeat_interleave(25)
    same = torch.rand(len(image)) > 0.4
    scores = torch.randn(len(image)) + same + 0.5 * torch.randn(images)[image]
    return (scores.round() if ties else scores), same, image


@pytest.mark.parametrize("ties", [False, True])
def test_auroc_agrees_with_scikit_learn(ties):
    metrics = pytest.importorskip("sklearn.metrics")
    scores, same, image = scored(ties=ties)
    expected = metrics.roc_auc_score(same.numpy(), scores.numpy())
    assert auroc(scores, same) == pytest.approx(expected)
    assert image_auroc(scores, same, image)[0] == pytest.approx(expected)


def test_the_win_table_gives_the_auroc_of_any_resampled_images():
    scores, same, image = scored(ties=True)
    wins = win_table(scores, same, image, 12)
    drawn = torch.randint(12, (12,))
    rows = torch.cat([(image == number).nonzero()[:, 0] for number in drawn.tolist()])
    times = torch.bincount(drawn, minlength=12).double()
    positive, negative = (torch.bincount(image[kind], minlength=12).double() for kind in (same, ~same))
    value = float((times @ wins @ times) / ((times @ positive) * (times @ negative)))
    assert value == pytest.approx(auroc(scores[rows], same[rows]))


def test_the_interval_holds_the_value_and_widens_when_images_differ():
    scores, same, image = scored(40)
    value, (low, high) = image_auroc(scores, same, image)
    assert low < value < high and high - low < 0.2
    flipped = torch.where(image < 20, scores, -scores)
    wide = image_auroc(flipped, same, image)[1]
    assert wide[1] - wide[0] > 2 * (high - low)


def test_perfect_constant_and_reversed_scores():
    same = torch.tensor([True, True, False, False])
    assert auroc(torch.tensor([3.0, 2, 1, 0]), same) == 1
    assert auroc(torch.tensor([0.0, 1, 2, 3]), same) == 0
    assert auroc(torch.ones(4), same) == 0.5


def test_accuracy_beside_the_majority():
    same = torch.tensor([True, False, False, False])
    found = pair_accuracy(torch.tensor([1.0, 1.0, -1.0, -1.0]), same)
    assert found == pytest.approx({"accuracy": 0.75, "balanced_accuracy": 5 / 6, "majority": 0.75, "skill": 0.0})


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="same and different"):
        auroc(torch.ones(3), torch.ones(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="same and different"):
        auroc(torch.ones(0), torch.ones(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="finite"):
        auroc(torch.tensor([1.0, float("nan")]), torch.tensor([True, False]))


@pytest.mark.parametrize("score", [auroc, pair_accuracy])
def test_shapes_types_and_single_kinds_are_named(score):
    scores, same = torch.randn(6), torch.arange(6) % 2 == 0
    for one, other, message in (
        (scores[:0], same[:0], "same and different"),
        (scores[:5], same, r"equal shapes, got \(5,\) and \(6,\)"),
        (scores[None], same[None], "1 dimensions"),
        (scores, torch.ones_like(same), "6 same of 6"),
        (scores * torch.nan, same, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            score(one, other)
    with pytest.raises(TypeError, match="booleans"):
        score(scores, same.long())
    with pytest.raises(TypeError, match="floating"):
        score(scores.long(), same)
    with pytest.raises(ValueError, match="image: expected"):
        image_auroc(scores, same, torch.zeros(5, dtype=torch.long))


def test_unlike_parts_of_one_object_and_a_twin_that_repeats_them():
    """An object shows its parts in tokens 0 and 1, its twin the same in 2 and 3: unlike means same."""
    parts = torch.randn(30, 2, 8)
    tokens = torch.cat([parts, parts], 1) + 0.1 * torch.randn(30, 4, 8)
    image = torch.arange(30).repeat(2)
    first, second = torch.zeros(60, dtype=torch.long), torch.tensor([1, 2]).repeat_interleave(30)
    pairs = Pairs(image, first, second, second == 1, (2, 2))
    assert unlikeness_auroc(tokens, pairs) > 0.95
    assert unlikeness_auroc(3 * tokens + 5, pairs) == pytest.approx(unlikeness_auroc(tokens, pairs), abs=1e-3)
    with pytest.raises(ValueError, match="3 dimensions"):
        unlikeness_auroc(tokens[0], pairs)
