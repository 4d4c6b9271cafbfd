"""Mass thresholds and the Jaccard score: exact counts, a brute-force reference, the untrained control."""

from __future__ import annotations

import itertools

import numpy
import pytest
import torch

from sslcore.probes.masks import dino_jaccard, jaccard_of_maps, mass_threshold, object_jaccard
from tests.probes.planted import NoAttention, TinyTransformer, painted_scenes


def test_uniform_keeps_sixty_percent_and_one_hot_keeps_one():
    assert int(mass_threshold(torch.full((4, 5), 0.05)).sum()) == 12
    assert int(mass_threshold(torch.ones(3, 3)).sum()) == 6  # 5 of 9 would be 56 %
    one_hot = torch.zeros(4, 4)
    one_hot[2, 1] = 0.3
    assert torch.equal(mass_threshold(one_hot), one_hot > 0)


@pytest.mark.parametrize("mass", [0.2, 0.6, 0.95, 1.0])
def test_no_smaller_set_reaches_the_mass(mass):
    maps = torch.rand(6, 2, 4)
    kept = mass_threshold(maps, mass)
    share = maps.double() / maps.double().sum((1, 2), keepdim=True)
    for values, chosen in zip(share, kept, strict=True):
        assert float(values[chosen].sum()) >= mass - 1e-9
        least = next(
            size
            for size in range(1, 9)
            if any(sum(pick) >= mass - 1e-9 for pick in itertools.combinations(values.flatten().tolist(), size))
        )
        assert int(chosen.sum()) == least


def test_jaccard_matches_a_loop():
    masks = torch.randint(0, 4, (3, 8, 8), dtype=torch.uint8)
    masks[1][masks[1] == 2] = 0  # image 1 lacks object 2
    chosen = torch.rand(3, 2, 4, 4) > 0.5
    score = object_jaccard(chosen, masks)
    for image, head, identity in itertools.product(range(3), range(2), range(1, 4)):
        selected = numpy.kron(chosen[image, head].numpy(), numpy.ones((2, 2))) > 0
        truth = masks[image].numpy() == identity
        value = score[image, head, identity - 1]
        if truth.any():
            assert float(value) == pytest.approx((selected & truth).sum() / (selected | truth).sum())
        else:
            assert bool(value.isnan())


def test_the_best_head_is_picked_for_each_object_then_objects_then_images():
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    masks[0, :2, :2], masks[0, 2:, 2:] = 1, 2
    maps = torch.zeros(1, 2, 4, 4)
    maps[0, 0, :2, :2] = 1.0  # head 0 sees object 1; of four equal patches, three hold 60 % of the mass
    maps[0, 1, 2:, 2:] = 1.0
    best, mean = jaccard_of_maps(maps, masks)
    assert best == pytest.approx(0.75) and mean == pytest.approx(0.375)


def test_images_without_objects_are_left_out():
    masks = torch.zeros(2, 4, 4, dtype=torch.uint8)
    masks[0, :2] = 1
    maps = masks.float()[:, None] + 1e-6
    assert jaccard_of_maps(maps, masks, mass=0.999)[0] == pytest.approx(1.0)


def test_the_untrained_control_is_reported_and_the_network_is_left_alone():
    scenes, net = painted_scenes(4, 1), TinyTransformer()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    result = dino_jaccard(net, scenes.images, scenes.masks)
    assert 0 <= result.mean_head <= result.best_head <= 1
    assert result.untrained_best_head is not None and result.untrained_best_head != result.best_head
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    same = dino_jaccard(net, scenes.images, scenes.masks, untrained=net)
    assert same.untrained_best_head == same.best_head
    assert dino_jaccard(net, scenes.images, scenes.masks, untrained=False).untrained_best_head is None


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="positive sum"):
        mass_threshold(torch.zeros(2, 2))
    with pytest.raises(ValueError, match="non-negative"):
        mass_threshold(torch.tensor([[1.0, -0.5]]))
    with pytest.raises(ValueError, match="finite"):
        mass_threshold(torch.full((2, 2), float("nan")))
    with pytest.raises(ValueError, match="mass"):
        mass_threshold(torch.ones(2, 2), 1.5)
    with pytest.raises(ValueError, match="background only"):
        jaccard_of_maps(torch.ones(1, 1, 2, 2), torch.zeros(1, 4, 4, dtype=torch.uint8))
    scenes = painted_scenes(2, 1)
    with pytest.raises(ValueError, match="no attention"):
        dino_jaccard(NoAttention(), scenes.images, scenes.masks)
    with pytest.raises(TypeError, match="torch.Tensor"):
        mass_threshold(torch.ones(2, 2).numpy())
