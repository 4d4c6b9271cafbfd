"""Pairs whose twin shows the very same part are found, and left out."""

import pytest
import torch

from sslcore import data
from sslcore.probes.same_object import other_part_pairs, part_steps, shortcut_aurocs, token_labels
from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.pairs import Pairs, candidate_pairs, cells


def test_steps_on_one_object_are_steps_in_the_image_and_a_twin_at_the_same_part_is_at_zero():
    labels = torch.tensor([[1, 1, 0, 2, 2, 0]])  # one row: an object of two patches and its twin three to the right
    centres = torch.tensor([[[4.0, 8.0], [4.0, 32.0]]])
    image = torch.zeros(4, dtype=torch.long)
    first, second = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 3, 4, 3])
    pairs = Pairs(image, first, second, first + second == 1, (1, 6))
    assert part_steps(pairs, labels, centres, 8).tolist() == [1, 0, 1, 1]
    with pytest.raises(ValueError, match="ground"):
        part_steps(Pairs(image[:1], first[:1], second[:1] + 1, pairs.same[:1], (1, 6)), labels, centres, 8)


def test_pairs_of_other_parts_keep_their_distance_and_stay_matched():
    scenes = data.load("twins", "test", num=60, seed=3)
    labels, purity = token_labels(scenes.masks, 8)
    every = candidate_pairs(labels, purity, (8, 8), scenes.extras["twin_of"])
    assert (part_steps(every, labels, scenes.extras["centres"], 8)[~every.same] < 1).any()  # something to leave out
    pairs = other_part_pairs(scenes, 8, (8, 8))
    assert part_steps(pairs, labels, scenes.extras["centres"], 8).min() >= 1
    cell = cells(pairs, "position")
    assert torch.equal(*(torch.bincount(cell[kind], minlength=64**2) for kind in (pairs.same, ~pairs.same)))


def test_rule_and_probe_are_read_on_every_kind_of_pairs():
    scenes = data.load("twins", "test", num=40, seed=3)
    pairs = other_part_pairs(scenes, 8, (8, 8))
    features = torch.randn(40, 64, 5)
    read = shortcut_aurocs(features, {"a": pairs, "b": pairs})
    assert list(read) == ["rule, a", "rule, b"] and read["rule, a"] == read["rule, b"]
    fitted = same_object_probe((features[None], pairs), (features[None], pairs), epochs=1)
    assert list(shortcut_aurocs(features, {"a": pairs}, fitted)) == ["rule, a", "probe, a"]
