"""Composed scenes: masks, twins, limits and captions are what they say; the same seed paints the same scenes."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.data import compose_scenes, load
from sslcore.data.embedded import stamp_ids, stamp_pixels, stamp_table
from sslcore.data.placement import choose, covering_cost
from sslcore.data.scene_draws import chunk_generator, draw_scenes
from sslcore.data.shapes import PALETTE, palette
from sslcore.data.sprites import Poses, draw, pack


@pytest.fixture(scope="module")
def scenes():
    return compose_scenes(96, twin_pairs=1, seed=3)


def test_same_seed_same_scenes_and_prefix(scenes):
    again = compose_scenes(96, twin_pairs=1, seed=3)
    fewer = compose_scenes(5, twin_pairs=1, seed=3)
    assert torch.equal(again.images, scenes.images) and again.captions == scenes.captions
    assert torch.equal(fewer.images, scenes.images[:5]) and fewer.captions == scenes.captions[:5]
    assert not torch.equal(compose_scenes(5, twin_pairs=1, seed=4).images, fewer.images)


@pytest.mark.parametrize("piece", [7, 512, 5000])
def test_painting_more_at_once_changes_nothing(piece, monkeypatch):
    """A GPU takes several chunks together; a small CPU piece ends inside a chunk."""
    wanted = compose_scenes(600, img_size=16, size_range=(0.3, 0.5), captions=False, seed=3)
    monkeypatch.setattr("sslcore.data.scenes.scenes_at_once", lambda img_size, device: piece)
    scenes = compose_scenes(600, img_size=16, size_range=(0.3, 0.5), captions=False, seed=3)
    assert torch.equal(scenes.images, wanted.images) and torch.equal(scenes.masks, wanted.masks)
    assert all(torch.equal(scenes.extras[key], wanted.extras[key]) for key in wanted.extras)


def test_masks_boxes_and_visibility_agree(scenes):
    masks, boxes = scenes.masks, scenes.extras["boxes"]
    assert masks.max() == 4 and scenes.images.dtype == torch.uint8
    for n in range(20):
        for k in range(4):
            rows, columns = (masks[n] == k + 1).nonzero(as_tuple=True)
            assert len(rows) > 0
            expected = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert boxes[n, k].tolist() == [int(v) for v in expected]
            row, column = scenes.extras["centres"][n, k]
            middle = torch.stack([rows.float().mean(), columns.float().mean()])
            assert (middle - torch.stack([row, column])).norm() < 10, "a tail may shift the middle, not more"
    assert ((scenes.extras["visible"] >= 0) & (scenes.extras["visible"] <= 1)).all()


def test_objects_are_distinct_and_presence_counts_them(scenes):
    objects, twin_of = scenes.extras["objects"], scenes.extras["twin_of"]
    assert ((twin_of >= 0).sum(dim=1) == 2).all()
    for row, present in zip(objects.tolist(), scenes.extras["presence"], strict=True):
        assert len(set(row)) == 3 and sorted(set(row)) == present.nonzero().flatten().tolist()


def test_twins_are_the_same_pixels_up_to_place():
    """Same photo, size, angle, flip and light: moved by whole pixels onto one another, twins would be equal."""
    scenes = compose_scenes(64, num_objects=2, twin_pairs=1, max_overlap=0.0, background="plain", seed=1)
    counts = torch.stack([(scenes.masks == k).flatten(1).sum(1) for k in (1, 2)], 1).float()
    assert ((counts[:, 0] / counts[:, 1] - 1).abs() < 0.35).all() and (
        (counts[:, 0] / counts[:, 1]).log().mean()
    ).abs() < 0.02
    tones = torch.stack(
        [(scenes.images * (scenes.masks == k)[:, None]).flatten(2).sum(2) / counts[:, k - 1, None] for k in (1, 2)]
    )
    assert (tones[0] - tones[1]).abs().mean() < 4, "twins are in the same light"
    drawn = draw_scenes(
        chunk_generator(0, 0),
        sources=190,
        objects=(4, 4),
        twin_pairs=2,
        size_range=(0.2, 0.4),
        rotation=30,
        relight=True,
    )
    for name in ("source", "size", "angle", "flip", "spin"):
        values = getattr(drawn, name)
        assert torch.equal(values.gather(1, drawn.twin_of), values), name
    assert not torch.equal(drawn.spot[..., 0].gather(1, drawn.twin_of), drawn.spot[..., 0])
    assert (drawn.twin_of.gather(1, drawn.twin_of) == torch.arange(4)).all(), "twinship is mutual"


@pytest.mark.parametrize(("limit", "share"), [(0.0, 0.05), (0.1, 0.15), (0.4, 0.45)])
def test_overlap_limit(limit, share):
    scenes = compose_scenes(128, max_overlap=limit, seed=5, captions=False)
    hidden = 1 - scenes.extras["visible"]
    assert (hidden > share + 0.05).float().mean() < 0.02
    if limit == 0.4:
        assert (hidden > 0.15).float().mean() > 0.02, "a generous limit is used"


def test_objects_stay_inside():
    scenes = compose_scenes(128, num_objects=1, size_range=(0.3, 0.9), rotation=180, seed=6, captions=False)
    area = (scenes.masks > 0).flatten(1).sum(1)
    far = compose_scenes(128, num_objects=1, size_range=(0.3, 0.9), rotation=180, seed=6, captions=False, img_size=128)
    wide = (far.masks > 0).flatten(1).sum(1) / 4
    assert ((area / wide - 1).abs() < 0.3).all(), "the same share of the picture at any resolution: nothing is cut off"
    assert torch.equal(scenes.labels, far.labels) and scenes.labels.max() < 258


def test_splits_show_their_own_stamps():
    for split in ("train", "test"):
        objects = compose_scenes(200, split=split, captions=False).extras["objects"]
        assert set(objects.flatten().tolist()) <= set(stamp_ids(split).tolist())
    assert load("scenes", "test", num=4).split == "test"


def test_variable_number_of_objects():
    scenes = compose_scenes(200, num_objects=(0, 3), seed=2)
    count = (scenes.extras["objects"] >= 0).sum(1)
    assert count.bincount(minlength=4).min() > 20
    assert torch.equal(torch.tensor([len(m.unique()) - 1 for m in scenes.masks]) <= count, torch.ones(200).bool())
    empty = (count == 0).nonzero().flatten().tolist()
    assert all(scenes.captions[i] == "nothing" for i in empty)
    assert (scenes.extras["boxes"][scenes.extras["objects"] < 0] == 0).all()


@pytest.mark.parametrize("background", ["noise", "gradient", "texture", "mixed", "plain"])
@pytest.mark.parametrize("source", ["stamps", "shapes"])
def test_every_family_paints(background, source):
    scenes = compose_scenes(8, source=source, background=background, img_size=48, seed=1)
    ground = scenes.images.float().masked_fill((scenes.masks > 0)[:, None], torch.nan)
    spread = torch.stack([g[:, ~g[0].isnan()].std(dim=1).mean() for g in ground])
    # Half-transparent rims belong to the ground in the masks, so even a plain ground is not quite flat.
    assert spread.median() < 25 if background == "plain" else spread.median() > 5


def test_shapes_come_in_two_colours():
    scenes = compose_scenes(64, source="shapes", num_objects=1, relight=False, seed=2)
    assert (scenes.extras["colours"][..., 0] != scenes.extras["colours"][..., 1]).all()
    assert scenes.classes[0] == "disc" and scenes.extras["presence"].shape == (64, 8)
    assert all(
        caption.endswith(scenes.classes[label]) for caption, label in zip(scenes.captions, scenes.labels, strict=True)
    )


def test_motion_is_steady():
    scenes = compose_scenes(24, frames=6, num_objects=2, max_overlap=0.0, speed=0.05, spin=0.0, seed=4)
    assert scenes.video.shape == (24, 6, 3, 64, 64) and scenes.video_masks.shape == (24, 6, 64, 64)
    assert torch.equal(scenes.video[:, 0], scenes.images) and torch.equal(scenes.video_masks[:, 0], scenes.masks)
    rows = torch.arange(64.0)[:, None].expand(64, 64)
    checked = 0
    for n in range(24):
        for k in (1, 2):
            here = scenes.video_masks[n] == k
            if here.flatten(1).sum(1).float().std() > 3:
                continue  # hidden on the way
            middle = torch.stack([rows[frame].mean() for frame in here])
            steps = middle.diff() - scenes.extras["velocity"][n, k - 1, 0]
            assert steps.mean().abs() < 0.25 and steps.abs().max() < 1.2
            checked += 1
    assert checked > 10
    assert scenes.subset([3, 5]).video.shape[0] == 2


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"num": 0}, "num"),
        ({"img_size": 4}, "img_size"),
        ({"num_objects": 0}, "num_objects"),
        ({"num_objects": (3, 2)}, "num_objects"),
        ({"twin_pairs": 3}, "6 objects, got 4"),
        ({"twin_pairs": -1}, "twin_pairs"),
        ({"size_range": (0.5, 0.2)}, "size_range"),
        ({"size_range": (0.01, 0.2)}, "size_range"),
        ({"max_overlap": -0.1}, "max_overlap"),
        ({"max_overlap": float("nan")}, "max_overlap"),
        ({"background": "photo"}, "gradient, mixed, noise"),
        ({"source": "photos"}, "shapes, stamps"),
        ({"split": "val"}, "all, test, train"),
        ({"frames": 0}, "frames"),
        ({"seed": -1}, "seed"),
        ({"rotation": -5.0}, "rotation"),
    ],
)
def test_bad_arguments_are_told(wrong, words):
    with pytest.raises(ValueError, match=words):
        compose_scenes(**{"num": 1, **wrong})


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(1, 6))
def test_covering_cost_is_the_sum_under_the_moved_mask(seed, half):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.rand(2, 32, 32, generator=generator)
    mask = torch.zeros(2, 32, 32)
    mask[:, 16 - half : 16 + half, 16 - half : 16 + half] = torch.rand(2, 2 * half, 2 * half, generator=generator)
    cost = covering_cost(weights, mask)
    for row, column in ((16, 16), (half, 32 - half), (10, 20)):
        moved = mask.roll((row - 16, column - 16), dims=(1, 2))
        assert torch.allclose(cost[:, row, column], (weights * moved).sum(dim=(1, 2)), atol=1e-4)


@given(st.lists(st.booleans(), min_size=1, max_size=30), st.floats(0, 1, exclude_max=True, width=32))
def test_choose_only_takes_what_is_allowed(allowed, uniform):
    index = choose(torch.tensor([allowed]), torch.tensor([uniform]))
    assert not any(allowed) or allowed[int(index)]


def test_choose_is_uniform():
    allowed = torch.tensor([[False, True, True, False, True]]).expand(3000, -1)
    index = choose(allowed, torch.rand(3000, generator=torch.Generator().manual_seed(0)))
    assert (index.bincount(minlength=5)[[1, 2, 4]] > 900).all()


def test_drawing_keeps_area_and_colour_at_every_size():
    """A stamp drawn small covers size^2 / 96^2 of its area, with the mean colour unchanged: mip levels are honest."""
    pixels = stamp_pixels()[:40].float() / 255
    for size in (12.0, 20.0, 31.0, 60.0, 96.0, 130.0):
        sprites = pack(pixels, size, size)
        ones = torch.full((40,), size)
        centre = torch.full((40, 2), 80.0)
        pose = Poses(torch.arange(40), centre, ones, 0.3 * torch.ones(40), torch.zeros(40).bool(), torch.ones(40))
        layer = draw(sprites, pose, 160)
        expected = pixels.sum(dim=(2, 3)) * (size / 96) ** 2
        assert ((layer.sum(dim=(2, 3)) / expected - 1).abs().mean(dim=0) < (0.06 if size < 20 else 0.03)).all()
        flipped = draw(sprites, replace(pose, flip=torch.ones(40).bool(), angle=-pose.angle), 160)
        assert torch.allclose(flipped.flip(-1), layer, atol=2e-3), "a flip mirrors the picture and the turn"


def test_captions_tell_the_truth(scenes):
    nouns = {record["noun"]: record for record in stamp_table()} | {
        record["plural"]: record for record in stamp_table()
    }
    told = 0
    for n, caption in enumerate(scenes.captions):
        for words, axis, sign in ((" left of ", 1, 1), (" right of ", 1, -1), (" above ", 0, 1), (" below ", 0, -1)):
            if words not in caption:
                continue
            sides = caption.split(", with ")[0].split(words)
            groups = []
            for side in sides:
                article, noun = side.split(" ", 1)
                record = nouns[noun]
                slots = [
                    k
                    for k, i in enumerate(scenes.extras["objects"][n].tolist())
                    if stamp_table()[i]["noun"] == record["noun"]
                ]
                assert (article in ("a", "an")) == (len(slots) == 1)
                groups.append(scenes.extras["centres"][n, slots, axis] * sign)
            assert groups[0].max() < groups[1].min()
            told += 1
    assert told > 40


@pytest.mark.gpu
def test_a_gpu_paints_the_same_scenes():
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    here, there = (compose_scenes(600, twin_pairs=1, frames=2, device=device) for device in ("cpu", "cuda"))
    assert there.images.is_cuda
    assert ((here.images.int() - there.images.cpu().int()).abs() > 2).float().mean() < 1e-3
    assert (here.masks != there.masks.cpu()).float().mean() < 1e-3
    assert here.captions == there.captions


@given(seed=st.integers(0, 99))
@settings(max_examples=10)
def test_combinations_rule_shapes_and_colours(seed):
    allowed = torch.rand(8, 6, generator=torch.Generator().manual_seed(seed)) < 0.3
    allowed[seed % 8, seed % 6] = True
    scenes = compose_scenes(40, source="shapes", num_objects=(1, 3), img_size=32, combinations=allowed, seed=seed)
    objects, colours = scenes.extras["objects"], scenes.extras["colours"]
    there = objects >= 0
    assert torch.equal(colours[..., 0], colours[..., 1])
    assert allowed[objects[there], colours[there][:, 0]].all()
    assert not any(f"{colour} and {colour}" in sentence for sentence in scenes.captions for colour in PALETTE)


def test_each_allowed_colour_is_as_frequent_and_painted():
    allowed = torch.zeros(8, 6).bool()
    allowed[1, [0, 2, 5]] = True
    scenes = compose_scenes(600, source="shapes", num_objects=1, relight=False, combinations=allowed, captions=False)
    colours = scenes.extras["colours"][:, 0, 0]
    assert scenes.labels.unique().tolist() == [1] and colours.bincount().tolist()[1] == 0
    assert colours.bincount()[[0, 2, 5]].min() > 150
    inside = scenes.masks[:, None] > 0
    tone = (scenes.images / 255 * inside).flatten(2).sum(2) / inside.flatten(2).sum(2)
    assert ((tone[:, None] - palette()).square().sum(2).argmin(1) == colours).all()


def test_bad_combinations_are_refused():
    table = torch.ones(8, 6).bool()
    for wrong, source in ((table[:4], "shapes"), (table.float(), "shapes"), (table, "stamps")):
        with pytest.raises(ValueError, match="combinations: expected .8, 6. bool"):
            compose_scenes(2, source=source, combinations=wrong)
    with pytest.raises(ValueError, match="at least one that is allowed"):
        compose_scenes(2, source="shapes", combinations=~table)
