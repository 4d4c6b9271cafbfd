"""Linear probe: scikit-learn's weights, settings side by side as alone, the choice made on val, bad input."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.linear import fit_logistic, linear_probe, training_statistics
from sslcore.probes.solver import minimise


def split(count: int, seed: int, width: int = 6, classes: int = 3):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(classes, (count,), generator=generator)
    return centres[labels] + 1.2 * torch.randn(count, width, generator=generator), labels


@pytest.mark.parametrize("l2", [1e-3, 1e-1])
def test_weights_agree_with_scikit_learn(l2):
    linear_model = pytest.importorskip("sklearn.linear_model")
    features, labels = split(200, 1)
    mean, std = training_statistics(features)
    standard = (features - mean) / std
    ours = fit_logistic(standard, labels, 3, [l2], 200)[0]
    ours = ours - ours.mean(0)  # a common shift of all classes changes nothing
    reference = linear_model.LogisticRegression(C=1 / (l2 * 200), tol=1e-8, max_iter=2000)
    reference.fit(standard.double().numpy(), labels.numpy())
    torch.testing.assert_close(ours[:, :-1].double(), torch.tensor(reference.coef_), atol=5e-3, rtol=1e-2)


def test_strengths_side_by_side_end_where_each_ends_alone():
    features, labels = split(150, 2)
    together = fit_logistic(features, labels, 3, [1e-2, 1e-1, 1.0], 300)
    for index, l2 in enumerate([1e-2, 1e-1, 1.0]):
        alone = fit_logistic(features, labels, 3, [l2], 300)[0]
        torch.testing.assert_close(together[index], alone, atol=5e-3, rtol=1e-2)


def test_solver_finds_the_bottom_of_each_quadratic():
    scale = torch.tensor([[1.0, 100.0, 0.1], [5.0, 5.0, 5.0]])
    target = torch.tensor([[1.0, -2.0, 3.0], [0.0, 4.0, -1.0]])

    def objective(point, rows):
        off = point - target[rows]
        return (scale[rows] * off.square()).sum(1) / 2, scale[rows] * off

    torch.testing.assert_close(minimise(objective, torch.zeros(2, 3), tolerance=1e-6), target, atol=1e-4, rtol=1e-4)


def test_setting_is_chosen_on_val_and_reported_on_test():
    train, val, test = split(60, 3, 40), split(100, 4, 40), split(400, 5, 40)
    result = linear_probe(train, val, test)
    assert result.val_accuracy == max(result.curve.values()) == result.curve[result.l2]
    assert result.accuracy == pytest.approx(float((result.predict(test[0]) == test[1]).float().mean()))
    changed = linear_probe(train, val, (test[0], (test[1] + 1) % 3))  # the test answers must not steer the choice
    assert changed.l2 == result.l2 and changed.val_accuracy == result.val_accuracy


def test_scale_and_shift_of_features_do_not_matter():
    train, val, test = split(200, 6), split(100, 7), split(200, 8)
    factor, shift = torch.tensor([1e-3, 1.0, 50.0, 2.0, 1.0, 1.0]), torch.arange(6.0) * 10
    moved = [(features * factor + shift, labels) for features, labels in (train, val, test)]
    assert abs(linear_probe(train, val, test).accuracy - linear_probe(*moved).accuracy) < 0.02


def test_constant_features_and_shuffled_labels_give_the_majority():
    _, labels = split(300, 9)
    constant = torch.ones(300, 4)
    majority = float(torch.bincount(labels).max() / 300)
    assert linear_probe((constant, labels), (constant, labels), (constant, labels)).accuracy == pytest.approx(majority)
    train, val, test = split(400, 10), split(100, 11), split(400, 12)
    shuffled = (train[0], train[1][torch.randperm(400)])
    assert linear_probe(train, val, test).accuracy > 0.7 > 0.5 > linear_probe(shuffled, val, test).accuracy


@pytest.mark.parametrize(
    "position, bad, message",
    [
        (0, (torch.zeros(0, 6), torch.zeros(0, dtype=torch.long)), "train features"),
        (1, (torch.zeros(4, 5), torch.zeros(4, dtype=torch.long)), "width 6"),
        (2, (torch.full((4, 6), float("inf")), torch.zeros(4, dtype=torch.long)), "finite"),
        (0, (torch.zeros(4, 6), None), "train labels"),
        (0, (torch.zeros(4, 6), torch.zeros(4)), "whole numbers"),
    ],
)
def test_bad_input_is_named(position, bad, message):
    splits = [split(20, 1), split(20, 2), split(20, 3)]
    splits[position] = bad
    with pytest.raises(ValueError, match=message):
        linear_probe(*splits)


def test_strength_must_be_positive_and_given():
    good = split(20, 1)
    with pytest.raises(ValueError, match="l2"):
        linear_probe(good, good, good, l2=[])
    with pytest.raises(ValueError, match="l2"):
        linear_probe(good, good, good, l2=[-1.0])
    with pytest.raises(ValueError, match="max_steps"):
        linear_probe(good, good, good, max_steps=0)


def test_stretched_features_are_fitted_to_the_bottom():
    """Spreads from 1 to 1/1000 along hidden axes, as in an untrained transformer; the weak axes carry the label."""
    linear_model = pytest.importorskip("sklearn.linear_model")
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(600, 24, generator=generator)
    labels = hidden[:, -3:].add(0.5 * torch.randn(600, 3, generator=generator)).argmax(1)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=generator)).Q
    features = hidden * torch.logspace(0, -3, 24) @ turn
    mean, std = training_statistics(features)
    inputs, l2 = (features - mean) / std, 1e-7
    found = fit_logistic(inputs, labels, 3, [l2], 200)[0].double()
    reference = linear_model.LogisticRegression(C=1 / (l2 * 600), solver="newton-cholesky", tol=1e-10, max_iter=500)
    reference.fit(inputs.double().numpy(), labels.numpy())

    def objective(weight: torch.Tensor, bias: torch.Tensor) -> float:
        log_probability = (inputs.double() @ weight.T + bias).log_softmax(1)
        return float(l2 / 2 * weight.square().sum() - log_probability[torch.arange(600), labels].mean())

    floor = objective(torch.from_numpy(reference.coef_), torch.from_numpy(reference.intercept_))
    assert objective(found[:, :-1], found[:, -1]) == pytest.approx(floor, abs=1e-3)
