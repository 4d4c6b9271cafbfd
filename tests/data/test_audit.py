"""Claims about the audit tools, one test each.

- Duplicates are those of a double loop; brightness, size and mirroring do not hide one; flat images match nothing.
- A higher threshold keeps a superset; the order of the stages changes the cost, never the kept set.
- The residual formula is what independent detectors leave in a simulation; detectors that err alike leave more.
- Chunks change nothing; wrong input is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sslcore.data import load
from sslcore.data.audit import find_duplicates, residual_share, sieve


def noise(count=12, channels=3, side=32, seed=0):
    coarse = torch.rand(count, channels, 8, 8, generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(coarse, size=side, mode="bilinear") * 255).to(torch.uint8)


def test_duplicates_equal_a_double_loop():
    images = noise(9)
    images[7] = images[2]
    images[5] = images[1].flip(2)
    images[8] = (0.4 * images[0].float() + 30).to(torch.uint8)
    found = find_duplicates(images, 0.6)
    grey = images.float().mean(1).numpy().reshape(9, 16, 2, 16, 2).mean((2, 4))
    expected = {}
    for i in range(9):
        for j in range(i + 1, 9):
            both = [np.corrcoef(grey[i].ravel(), other.ravel())[0, 1] for other in (grey[j], grey[j][:, ::-1])]
            if max(both) >= 0.6:
                expected[i, j] = (max(both), both[1] > both[0])
    assert {tuple(pair) for pair in found.pairs.tolist()} == set(expected)
    for pair, value, mirrored in zip(found.pairs.tolist(), found.similarity, found.mirrored, strict=True):
        assert float(value) == pytest.approx(expected[tuple(pair)][0], abs=1e-4)
        assert bool(mirrored) == expected[tuple(pair)][1]
    top = {tuple(pair) for pair in found.pairs[:3].tolist()}
    assert top == {(2, 7), (1, 5), (0, 8)} and torch.equal(found.similarity, found.similarity.sort(descending=True)[0])


def test_mirrors_count_only_when_asked():
    images = noise(2)
    images[1] = images[0].flip(2)
    assert len(find_duplicates(images, 0.99).pairs) == 1
    assert len(find_duplicates(images, 0.99, mirrored=False).pairs) == 0


def test_equal_images_match_at_threshold_one_and_flat_ones_match_nothing():
    images = noise(4)
    images[3] = images[0]
    images[1] = images[2] = 128
    assert find_duplicates(images, 1.0).pairs.tolist() == [[0, 3]]


@given(st.integers(1, 20), st.integers(1, 9), st.floats(0.2, 1.0))
def test_chunks_change_nothing(count, chunk, threshold):
    images = noise(count)
    whole, parts = find_duplicates(images, threshold), find_duplicates(images, threshold, chunk=chunk)
    torch.testing.assert_close(tuple(parts), tuple(whole))


def test_the_committed_stamps_hold_no_duplicate_across_splits():
    stamps = load("stamps", "all")
    train = {int(i) for i, where in zip(stamps.extras["ids"], _splits(), strict=True) if where == "train"}
    pairs = find_duplicates(stamps.images, 0.95).pairs.tolist()
    assert [pair for pair in pairs if (pair[0] in train) != (pair[1] in train)] == []


def _splits():
    from sslcore.data.embedded import stamp_table

    return [record["split"] for record in stamp_table()]


def scores_of(seed, count=50):
    random = torch.Generator().manual_seed(seed)
    return {name: torch.rand(count, generator=random) for name in ("faces", "persons", "plates")}


@given(st.integers(0, 1000), st.lists(st.floats(0, 1), min_size=3, max_size=3), st.permutations([0, 1, 2]))
def test_order_changes_cost_and_a_higher_threshold_keeps_more(seed, limits, order):
    scores = scores_of(seed)
    thresholds = dict(zip(scores, limits, strict=True))
    found = sieve(scores, thresholds)
    by_hand = [all(float(scores[name][i]) < thresholds[name] for name in scores) for i in range(50)]
    assert found.keep.tolist() == by_hand
    names = [list(scores)[place] for place in order]
    turned = sieve({name: scores[name] for name in names}, thresholds)
    assert torch.equal(turned.keep, found.keep)
    assert turned.looked_at[names[0]] == 50 and sum(turned.dropped.values()) == 50 - int(found.keep.sum())
    looser = sieve(scores, {name: limit + 0.1 for name, limit in thresholds.items()})
    assert not (found.keep & ~looser.keep).any()


def test_threshold_zero_keeps_nothing_that_was_scored():
    assert not sieve({"faces": torch.rand(9)}, {"faces": 0.0}).keep.any()


def test_residual_is_what_independent_detectors_leave():
    count, prevalence, recalls, alarms = 200_000, 0.2, (0.8, 0.6), (0.1, 0.05)
    random = torch.Generator().manual_seed(0)
    sensitive = torch.rand(count, generator=random) < prevalence

    def detector(recall, alarm, luck):
        return (luck < torch.where(sensitive, torch.tensor(recall), torch.tensor(alarm))).float()

    apart = [detector(r, a, torch.rand(count, generator=random)) for r, a in zip(recalls, alarms, strict=True)]
    keep = sieve(dict(zip("ab", apart, strict=True)), {"a": 0.5, "b": 0.5}).keep
    formula = residual_share(prevalence, recalls, alarms)
    error = (formula * (1 - formula) / int(keep.sum())) ** 0.5
    assert abs(float(sensitive[keep].float().mean()) - formula) < 4 * error
    luck = torch.rand(count, generator=random)  # both fail on the same images
    alike = [detector(r, a, luck) for r, a in zip(recalls, alarms, strict=True)]
    keep = sieve(dict(zip("ab", alike, strict=True)), {"a": 0.5, "b": 0.5}).keep
    assert float(sensitive[keep].float().mean()) > formula + 10 * error


def test_residual_by_hand():
    assert residual_share(0.3, [0.0]) == pytest.approx(0.3)
    assert residual_share(0.3, [1.0, 0.5]) == 0.0
    assert residual_share(0.5, [0.8], [0.0]) == pytest.approx(0.1 / 0.6)
    assert residual_share(1.0, [1.0], [1.0]) == 0.0


def test_bad_input_is_refused():
    images = noise(3)
    for arguments, message in (
        ((images, 0.0), r"threshold: expected a correlation in \(0, 1\]"),
        ((images, 1.5), "threshold: expected a correlation"),
        ((images[:, :2],), "expected 1 or 3 channels"),
    ):
        with pytest.raises(ValueError, match=message):
            find_duplicates(*arguments)
    with pytest.raises(ValueError, match="side: expected 2 to 32, got 64"):
        find_duplicates(images, side=64)
    with pytest.raises(ValueError, match="chunk: expected at least 1"):
        find_duplicates(images, chunk=0)
    good = torch.rand(4)
    for scores, thresholds, message in (
        ({}, {}, "at least one stage"),
        ({"a": good}, {"b": 0.5}, r"thresholds: expected \['a'\], got \['b'\]"),
        ({"a": good, "b": good[:3]}, {"a": 0.5, "b": 0.5}, "scores of b: expected 4, got 3"),
        ({"a": good * torch.nan}, {"a": 0.5}, "scores of a: expected finite"),
        ({"a": good}, {"a": float("nan")}, "threshold of a: expected a number"),
    ):
        with pytest.raises(ValueError, match=message):
            sieve(scores, thresholds)
    with pytest.raises(TypeError, match="scores of a: expected a floating-point"):
        sieve({"a": torch.arange(4)}, {"a": 0.5})
    for arguments, message in (
        ((0.5, []), "recalls: expected at least one stage"),
        ((1.5, [0.5]), "prevalence: expected numbers"),
        ((0.5, [-0.1]), "recalls: expected numbers"),
        ((0.5, [0.5], [0.1, 0.2]), "false_alarms: expected 1 or none, got 2"),
    ):
        with pytest.raises(ValueError, match=message):
            residual_share(*arguments)
