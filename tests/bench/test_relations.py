"""Rank correlation against scipy, permutations by hand, intervals, and what too few networks get."""

from __future__ import annotations

import itertools

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sslcore.bench import ranks, relate, spearman
from sslcore.bench.relations import orders

VALUES = st.lists(st.integers(-4, 4), min_size=4, max_size=9)


@given(VALUES)
def test_ranks_agree_with_scipy(values):
    stats = pytest.importorskip("scipy.stats")
    assert ranks(torch.tensor(values).double()).tolist() == (stats.rankdata(values) - 1).tolist()


@given(st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4)), min_size=4, max_size=9))
def test_spearman_agrees_with_scipy(pairs):
    stats = pytest.importorskip("scipy.stats")
    x, y = (torch.tensor(column).double() for column in zip(*pairs, strict=True))
    if len(set(x.tolist())) == 1 or len(set(y.tolist())) == 1:
        assert bool(spearman(x, y).isnan())
    else:
        assert float(spearman(x, y)) == pytest.approx(stats.spearmanr(x.numpy(), y.numpy()).statistic, abs=1e-9)


def test_the_exact_p_counts_orders():
    x, y = [1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 3.0, 2.0, 5.0, 4.0]
    found = relate(x, y)

    def rho(order):
        return numpy.corrcoef(x, [y[i] for i in order])[0, 1]  # the values are ranks already

    seen = rho(range(5))
    share = numpy.mean([abs(rho(order)) >= abs(seen) - 1e-9 for order in itertools.permutations(range(5))])
    assert found.exact and found.rho == pytest.approx(seen) and found.p == pytest.approx(share)
    assert found.smallest == pytest.approx(2 / 120) and "n = 5" in str(found)


def test_perfect_order_has_the_smallest_p_and_any_monotone_map_keeps_it():
    x = [0.1, 0.4, 0.5, 0.7, 0.9, 1.3]
    rising, falling = relate(x, [value**3 for value in x]), relate(x, [-value for value in x])
    assert rising.rho == pytest.approx(1) and falling.rho == pytest.approx(-1)
    assert rising.p == falling.p == pytest.approx(rising.smallest) and rising.low > 0.9


def test_many_networks_are_sampled_with_the_order_seen_among_them():
    found = relate(list(range(12)), list(range(12)), draws=500)
    assert not found.exact and found.p >= 1 / 501 and found.smallest == pytest.approx(1 / 501)
    order, exact = orders(12, 50, torch.Generator().manual_seed(0))
    assert not exact and order[0].tolist() == list(range(12)) and bool((order.sort(1)[0] == torch.arange(12)).all())


def test_errors_of_measurement_widen_the_interval_only():
    x, y = list(range(8)), [0, 1, 2, 3, 4, 5, 7, 6]
    sure, unsure = relate(x, y), relate(x, y, errors=([2.0] * 8, [0.0] * 8))
    assert (sure.rho, sure.p) == (unsure.rho, unsure.p) and unsure.low < sure.low - 0.1
    with pytest.raises(ValueError, match="errors"):
        relate(x, y, errors=([1.0], [0.0] * 8))


def test_noise_rarely_looks_like_a_relation():
    generator = torch.Generator().manual_seed(0)
    tables = torch.randn(60, 2, 7, generator=generator)
    small = [relate(x.tolist(), y.tolist(), draws=200).p <= 0.05 for x, y in tables]
    assert sum(small) <= 8  # 3 expected


@pytest.mark.parametrize(
    "x, y, message",
    [
        ([1, 2, 3], [1, 2, 3], "at least 4"),
        ([1, 2, 3, 4], [1, 2, 3], "equal lengths"),
        ([1, 2, 3, 4], [1, 2, float("nan"), 4], "finite"),
        ([1, 1, 1, 1], [1, 2, 3, 4], "differ"),
    ],
)
def test_bad_columns_are_named(x, y, message):
    with pytest.raises(ValueError, match=message):
        relate(x, y)


def test_columns_that_have_no_rank_correlation_are_named():
    x = torch.arange(5.0)
    for one, other, message in ((x, x[:4], "got 5 and 4"), (x[:1], x[:1], "at least 2"), (x / 0, x, "1 NaN")):
        with pytest.raises(ValueError, match=message):
            spearman(one, other)
    with pytest.raises(ValueError, match="scalar"):
        ranks(x[0])
    with pytest.raises(TypeError, match="Tensor"):
        ranks([1.0, 2.0])
