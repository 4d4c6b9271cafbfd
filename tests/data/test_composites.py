"""Scenes of composite objects: masks that fit each other, parts on their bodies, draws that can be repeated."""

import pytest
import torch

from sslcore.data import compose_composites
from sslcore.data.composites import TYPES, composite_pixels


@pytest.fixture(scope="module")
def scenes():
    return compose_composites(40, img_size=48, num_objects=(1, 3), size_range=(0.3, 0.4), seed=5)


def test_parts_and_objects_fit(scenes):
    parts, masks = scenes.extras["parts"], scenes.masks
    assert torch.equal(parts > 0, masks > 0) and int(parts.max()) <= 4
    for image, mask, slots in zip(parts, masks, scenes.extras["objects"].tolist(), strict=True):
        for k, kind in enumerate(slots):
            here = mask == k + 1
            assert bool(here.any()) is (kind >= 0)
            if kind >= 0:
                expected = {1, *range(2, 2 + len(list(TYPES.values())[kind].places))}
                assert set(image[here].unique().tolist()) <= expected
                assert int((here & (image == 1)).sum()) > int((here & (image > 1)).sum()) / 3


def test_every_type_shows_its_parts():
    scenes = compose_composites(60, img_size=64, num_objects=1, size_range=(0.6, 0.8), seed=1)
    assert set(scenes.labels.tolist()) == set(range(len(TYPES)))
    for kind, part, mask in zip(scenes.labels.tolist(), scenes.extras["parts"], scenes.masks, strict=True):
        assert set(part.unique().tolist()) == {0, 1, *range(2, 2 + len(list(TYPES.values())[kind].places))}
        assert int((mask > 0).sum()) > 300


def test_objects_differ_in_type_and_parts_in_colour(scenes):
    for slots, present in zip(scenes.extras["objects"].tolist(), scenes.extras["presence"], strict=True):
        kinds = [kind for kind in slots if kind >= 0]
        assert len(set(kinds)) == len(kinds) and sorted(kinds) == present.nonzero()[:, 0].tolist()
    colours = scenes.extras["colours"]
    assert bool((colours[..., 0] != colours[..., 1]).all())


def test_colours_say_nothing_about_types():
    scenes = compose_composites(3000, img_size=24, num_objects=1, size_range=(0.6, 0.8), seed=3, background="plain",
                                colours="free")
    table = torch.zeros(len(TYPES), 36)
    pairs = scenes.extras["colours"][:, 0, 0] * 6 + scenes.extras["colours"][:, 0, 1]
    table.index_put_((scenes.labels, pairs), torch.ones(3000), accumulate=True)
    expected = table.sum(1, keepdim=True) * table.sum(0) / 3000
    used = expected > 0
    statistic = float(((table - expected).square()[used] / expected[used]).sum())
    assert statistic < 145 + 3 * (2 * 145) ** 0.5  # chi-square with 5 * 29 degrees of freedom, three sigma


def test_neither_own_colour_tells_the_type():
    scenes = compose_composites(200, img_size=24, size_range=(0.4, 0.6), seed=3)
    seen = {}
    for kinds, colours in zip(scenes.extras["objects"].tolist(), scenes.extras["colours"].tolist(), strict=True):
        for kind, pair in zip(kinds, colours, strict=True):
            assert seen.setdefault(kind, pair) == pair
    assert len({tuple(pair) for pair in seen.values()}) == len(TYPES)
    for place in (0, 1):
        shared = [pair[place] for pair in seen.values()]
        assert min(shared.count(colour) for colour in shared) >= 2


def test_what_is_painted_is_what_the_masks_say():
    scenes = compose_composites(20, img_size=48, num_objects=1, size_range=(0.6, 0.8), relight=False, seed=2)
    from sslcore.data.shapes import palette

    for image, part, (body, ink) in zip(
        scenes.images.float() / 255, scenes.extras["parts"], scenes.extras["colours"][:, 0].tolist(), strict=True
    ):
        for code, colour in ((1, body), (2, ink)):
            got = image[:, part == code].median(dim=1).values
            assert float((got - palette()[colour]).abs().max()) < 0.15


def test_the_same_seed_gives_the_same_scenes():
    few, many = (compose_composites(n, img_size=24, size_range=(0.4, 0.6), seed=4) for n in (3, 7))
    assert torch.equal(few.images, many.images[:3]) and torch.equal(few.extras["parts"], many.extras["parts"][:3])
    other = compose_composites(3, img_size=24, size_range=(0.4, 0.6), seed=5)
    assert not torch.equal(few.images, other.images)


def test_objects_hide_each_other_as_little_as_asked():
    scenes = compose_composites(100, img_size=48, seed=6)
    assert float(scenes.extras["visible"].mean()) > 0.97


def test_sprites_are_covered_once():
    pixels = composite_pixels()
    torch.testing.assert_close(pixels[:, :-1].sum(1), pixels[:, -1])
    assert bool((pixels[:, 1].sum((1, 2)) > 100).all())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num": 0}, "num"), ({"img_size": 4}, "img_size"), ({"num_objects": 7}, "num_objects"),
        ({"num_objects": (3, 2)}, "num_objects"), ({"size_range": (0.5, 0.4)}, "size_range"),
        ({"size_range": (0.05, 0.4)}, "vanish"), ({"max_overlap": 2.0}, "max_overlap"), ({"seed": -1}, "seed"),
        ({"background": "blue"}, "unknown background"), ({"colours": "grey"}, "unknown colours"),
        ({"rotation": -1.0}, "rotation"),
    ],
)  # fmt: skip
def test_bad_input(settings, message):
    with pytest.raises(ValueError, match=message):
        compose_composites(**{"num": 2, **settings})
