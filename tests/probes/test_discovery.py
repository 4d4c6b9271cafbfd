"""LOST and TokenCut on planted features, components, boxes and CorLoc by hand."""

from __future__ import annotations

import numpy
import pytest
import torch

from sslcore.probes.discovery import (
    bounding_boxes,
    box_iou,
    centre_boxes,
    component,
    corloc,
    lost,
    patch_keys,
    tokencut,
)
from tests.probes.planted import TinyTransformer

GRID = (6, 8)


def planted(tops: list[tuple[int, int]], cross: float = -0.5) -> tuple[torch.Tensor, torch.Tensor]:
    """Objects of 2 x 3 patches at tops: keys positive inside object and background, `cross` between them."""
    masks = torch.zeros(len(tops), *GRID, dtype=torch.bool)
    for mask, (row, column) in zip(masks, tops, strict=True):
        mask[row : row + 2, column : column + 3] = True
    inside, outside = torch.tensor([1.0, 0.0]), torch.tensor([cross, (1 - cross**2) ** 0.5])
    return torch.where(masks.flatten(1)[..., None], inside, outside), masks


TOPS = [(0, 0), (2, 3), (4, 5)]


def test_lost_seeds_in_the_small_group_and_finds_it():
    features, masks = planted(TOPS)
    found = lost(features, GRID, patch_size=4)
    assert bool(masks.flatten(1)[torch.arange(3), found.seed].all())
    assert torch.equal(found.mask, masks)
    assert found.boxes.tolist() == [[0, 0, 12, 8], [12, 8, 24, 16], [20, 16, 32, 24]]


def test_lost_keeps_only_the_part_connected_with_the_seed():
    features, masks = planted([(0, 0)])
    features[0, -1] = torch.tensor([1.0, 0.0])  # one more object patch, in the far corner
    found = lost(features, GRID)
    assert torch.equal(found.mask, masks)


@pytest.mark.parametrize("cross", [0.0, -0.5])
def test_tokencut_splits_two_blocks_exactly(cross):
    features, masks = planted(TOPS, cross)
    features = features * (0.1 + torch.rand(3, GRID[0] * GRID[1], 1))  # lengths must not matter
    assert torch.equal(tokencut(features, GRID).mask, masks)


def test_tokencut_agrees_with_scipy():
    linalg = pytest.importorskip("scipy.linalg")
    features, masks = planted([(2, 3)], 0.0)
    features = features + 0.05 * torch.randn(features.shape)
    unit = torch.nn.functional.normalize(features[0].double(), dim=-1).numpy()
    weights = numpy.where(unit @ unit.T > 0.2, 1.0, 1e-5)
    degree = numpy.diag(weights.sum(1))
    values, vectors = linalg.eigh(degree - weights, degree)
    assert values[0] == pytest.approx(0, abs=1e-9) and numpy.ptp(vectors[:, 0]) < 1e-6
    second = vectors[:, 1]
    side = second > second.mean()
    if not side[numpy.abs(second).argmax()]:
        side = ~side
    assert (tokencut(features, GRID).mask[0].flatten().numpy() == side).all()


def test_component_agrees_with_scipy_also_along_a_snake():
    ndimage = pytest.importorskip("scipy.ndimage")
    mask = torch.rand(4, 9, 9) > 0.45
    mask[3] = True
    mask[3, 1::4, :-1] = False
    mask[3, 3::4, 1:] = False
    for index in range(4):
        seed = int(mask[index].flatten().nonzero()[0])
        label = ndimage.label(mask[index].numpy())[0]
        found = component(mask[index : index + 1], torch.tensor([seed]))[0]
        assert (found.numpy() == (label == label.flatten()[seed])).all()


def test_keys_are_the_middle_third_without_prefix():
    net = TinyTransformer(prefix=2)
    images = torch.randint(0, 256, (3, 3, 16, 24), dtype=torch.uint8)
    before = net.eval()(net.preprocess(images), return_layers=True).layers[-2]
    expected = net.qkv[-1]["qkv"](before).chunk(3, -1)[1][:, 2:]
    torch.testing.assert_close(patch_keys(net, images, batch_size=2), expected)
    assert not net.qkv[-1]["qkv"]._forward_hooks
    with pytest.raises(ValueError, match="qkv"):
        patch_keys(torch.nn.Conv2d(3, 4, 8), images)


def test_boxes_and_empty_masks():
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[0, 1:3, 2:6] = True
    assert bounding_boxes(mask, 2).tolist() == [[4, 2, 12, 6], [-1, -1, -1, -1]]


def test_iou_and_corloc_by_hand():
    box = torch.tensor([0.0, 0.0, 4.0, 4.0])
    others = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [4, 4, 8, 8], [-1, -1, -1, -1]])
    assert box_iou(box, others).tolist() == pytest.approx([1, 1 / 3, 0, 0])
    truth = torch.stack([others[[1, 0]], others[[1, 3]]])  # image 0 has a hit, image 1 only a third
    assert corloc(box.expand(2, 4), truth) == 0.5
    assert corloc(box.expand(2, 4), truth, threshold=0.3) == 1.0


def test_centre_boxes_find_centred_objects():
    boxes = centre_boxes(3, 32, 64)
    assert boxes[0].tolist() == [16, 8, 48, 24]
    assert corloc(boxes, boxes[:, None]) == 1.0


@pytest.mark.parametrize("method", [lost, tokencut])
@pytest.mark.parametrize("shape", [(1, 47, 2), (0, 48, 2), (48, 2)])
def test_bad_shapes_are_named(method, shape):
    with pytest.raises(ValueError, match="features"):
        method(torch.zeros(shape), GRID)


@pytest.mark.parametrize("method", [lost, tokencut])
def test_nan_is_named(method):
    with pytest.raises(ValueError, match="finite"):
        method(torch.full((1, 48, 2), float("nan")), GRID)


def test_corloc_rejects_empty_sets():
    with pytest.raises(ValueError, match="boxes"):
        corloc(torch.zeros(0, 4), torch.zeros(0, 1, 4))
    with pytest.raises(ValueError, match="boxes"):
        corloc(torch.zeros(2, 4), torch.zeros(2, 0, 4))
    with pytest.raises(ValueError, match="finite"):
        corloc(torch.full((1, 4), torch.nan), torch.zeros(1, 1, 4))
