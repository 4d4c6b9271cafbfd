"""Strata of pairs on painted masks with known answers."""

from __future__ import annotations

import pytest
import torch

from sslcore.probes.same_object.labels import token_labels
from sslcore.probes.same_object.pairs import Pairs, candidate_pairs
from sslcore.probes.same_object.strata import pair_strata, strata_auroc, touching_objects


def masks() -> torch.Tensor:
    """Patches of 4 on 16 x 16: 1 and 2 side by side on top, 3 alone below, 4 diagonal to 3 (corners only)."""
    table = torch.tensor([[1, 1, 2, 2], [0, 0, 0, 0], [3, 0, 0, 0], [0, 4, 0, 0]])
    return table.repeat_interleave(4, 0).repeat_interleave(4, 1)[None].repeat(3, 1, 1)


def test_touching_needs_a_common_border():
    table = touching_objects(masks())[0]
    assert table.nonzero().tolist() == [[1, 2], [2, 1]]


def test_strata_of_every_kind():
    labels, purity = token_labels(masks(), 4)
    twin_of = torch.tensor([[2, -1, 0, -1]]).repeat(3, 1)  # objects 1 and 3 are twins
    classes = torch.tensor([[0, 1, 0, 0]]).repeat(3, 1)
    pairs = candidate_pairs(labels, purity, (4, 4), stratum="foreground")
    strata = pair_strata(pairs, masks(), 4, twin_of, classes, edges=(1.5,))
    a, b = labels[pairs.image, pairs.first], labels[pairs.image, pairs.second]

    def kinds(name):
        return {(int(x), int(y)) for x, y in zip(a[strata[name]], b[strata[name]], strict=True)}

    same = {(1, 1), (2, 2)}
    assert kinds("twins") == same | {(1, 3)}
    assert kinds("same_class") == same | {(1, 4), (3, 4)}
    assert kinds("other_class") == same | {(1, 2), (2, 3), (2, 4)}
    assert kinds("touching") == same | {(1, 2)}
    assert kinds("separated") == {(1, 3), (2, 3), (1, 4), (2, 4), (3, 4)}
    assert kinds("distance 0-1.5") == same | {(1, 2), (3, 4)}
    assert bool((strata["distance 0-1.5"] ^ strata["distance 1.5+"]).all())
    assert bool(strata["interior"].all()) and not bool(strata["border"].any())


def test_each_stratum_is_matched_on_its_own():
    """Scores that know the place and nothing else sit at one half in every stratum."""
    generator = torch.Generator().manual_seed(0)
    image = torch.arange(60).repeat_interleave(30)
    ends = torch.stack([torch.randperm(16, generator=generator)[:2].sort().values for _ in image])
    chance = torch.rand(len(image), generator=generator)
    same = chance < ((ends[:, 1] - ends[:, 0]) < 5).float() * 0.6 + 0.2  # near means same
    pairs = Pairs(image, ends[:, 0], ends[:, 1], same, (4, 4))
    place = (ends[:, 0] * 16 + ends[:, 1]).float().sin()
    found = strata_auroc(place, pairs, {"odd": image % 2 == 1, "all": image >= 0, "only same": same})
    assert set(found) == {"odd", "all"}
    assert all(value[0] == pytest.approx(0.5, abs=1e-9) for value in found.values())
    perfect = strata_auroc(same.float(), pairs, {"all": image >= 0})["all"]
    assert perfect[0] == 1.0 and perfect[1] == (1.0, 1.0) and perfect[2] < len(pairs)


def test_pairs_that_do_not_fit_the_masks_are_refused():
    labels, purity = token_labels(masks(), 4)
    pairs = candidate_pairs(labels, purity, (4, 4), stratum="all")
    with pytest.raises(ValueError, match="objects only"):
        pair_strata(pairs, masks(), 4)
    wrong = candidate_pairs(labels, purity, (4, 4), stratum="foreground")
    with pytest.raises(ValueError, match="answers"):
        pair_strata(Pairs(wrong.image, wrong.first, wrong.second, ~wrong.same, (4, 4)), masks(), 4)
