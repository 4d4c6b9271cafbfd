"""CKA: invariances, the pull towards 1 with few rows and its cure, HSIC_1 from its definition, bad input."""

from __future__ import annotations

import itertools

import pytest
import torch

from sslcore.probes.cka import cka, cka_matrix, hsic_unbiased


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("rows", [15, 80])  # fewer and more rows than columns: both products
def test_rotation_scale_and_shift_do_not_matter(rows, unbiased):
    x = torch.randn(rows, 20)
    y = 3 * x @ torch.linalg.qr(torch.randn(20, 20))[0] + torch.randn(20)
    assert cka(x, y, unbiased) == pytest.approx(1, abs=1e-5)
    assert cka(x, x * torch.logspace(0, 2, 20), unbiased) < 0.95  # other linear maps do


def test_both_products_give_one_value_and_it_is_symmetric():
    x, y = torch.randn(30, 10), torch.randn(30, 40)
    y[:, :10] += x
    centred = [z.double() - z.double().mean(0) for z in (x, y)]
    features = (centred[1].T @ centred[0]).norm() ** 2
    features = features / ((centred[0].T @ centred[0]).norm() * (centred[1].T @ centred[1]).norm())
    assert cka(x, y) == pytest.approx(float(features)) == pytest.approx(cka(y, x))
    assert cka(x, y, True) == pytest.approx(cka(y, x, True))


def test_few_rows_pull_the_plain_estimate_up_but_not_the_unbiased_one():
    generator = torch.Generator().manual_seed(0)
    pairs = [[torch.randn(40, 100, generator=generator) for _ in range(2)] for _ in range(10)]
    plain = sum(cka(x, y) for x, y in pairs) / 10
    unbiased = sum(cka(x, y, True) for x, y in pairs) / 10
    assert plain == pytest.approx(0.71, abs=0.02) and abs(unbiased) < 0.03


def test_hsic_is_the_average_over_distinct_index_tuples():
    count = 6
    first, second = (z @ z.T for z in (torch.randn(count, 3).double(), torch.randn(count, 3).double()))
    tuples = list(itertools.permutations(range(count), 4))
    value = sum(
        first[i, j] * (second[i, j] + second[q, r] - 2 * second[i, q]) for i, j, q, r in tuples
    ) / len(tuples)
    torch.testing.assert_close(hsic_unbiased(first, second), value)


@pytest.mark.parametrize(
    "first, second, unbiased, message",
    [
        (torch.randn(5, 2), torch.randn(6, 2), False, "same inputs"),
        (torch.randn(1, 2), torch.randn(1, 2), False, "at least 2"),
        (torch.randn(3, 2), torch.randn(3, 2), True, "at least 4"),
        (torch.ones(5, 2), torch.randn(5, 2), False, "constant"),
        (torch.full((5, 2), float("nan")), torch.randn(5, 2), False, "finite"),
    ],
)
def test_bad_input_is_named(first, second, unbiased, message):
    with pytest.raises(ValueError, match=message):
        cka(first, second, unbiased)


@pytest.mark.parametrize("unbiased", [False, True])
def test_the_matrix_holds_cka_of_every_pair(unbiased):
    features = [torch.randn(30, width) + 5 for width in (4, 12, 50)]
    features.append(features[0] @ torch.randn(4, 6))
    matrix = cka_matrix(features, unbiased)
    for first, second in itertools.product(range(4), repeat=2):
        assert float(matrix[first, second]) == pytest.approx(cka(features[first], features[second], unbiased), abs=1e-9)


def test_the_matrix_refuses_what_cka_refuses():
    with pytest.raises(ValueError, match="at least one"):
        cka_matrix([])
    with pytest.raises(ValueError, match="same inputs"):
        cka_matrix([torch.randn(8, 2), torch.randn(9, 2)])
    with pytest.raises(ValueError, match="vary"):
        cka_matrix([torch.randn(8, 2), torch.ones(8, 2)])
