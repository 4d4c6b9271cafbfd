"""The tree probe on planted attention, on a DependencyViT and on an ordinary transformer."""

import math

import pytest
import torch
from torch import nn

from sslcore.backbones import DependencyViT, Tokens, VisionTransformer, small_convnet
from sslcore.data import compose_composites
from sslcore.probes import dependency_masks, token_labels, tree_probe

SHAPE = dict(img_size=24, patch_size=4, embed_dim=12, depth=2, num_heads=3)


@pytest.fixture(scope="module")
def scenes():
    return [compose_composites(12, img_size=24, size_range=(0.5, 0.6), seed=seed) for seed in (1, 2)]


class Planted(nn.Module):
    """Block 2 attends evenly to the patches of its own object (or of the background), block 1 to all alike.

    Finds the object in the image itself: the scenes' masks are painted into the first channel."""

    embed_dim, patch_size, num_prefix_tokens = 4, 4, 1

    def __init__(self, turned=False):
        super().__init__()
        self.turned, self.weight = turned, nn.Parameter(torch.zeros(()))

    def forward(self, images, return_attention=False):
        labels = token_labels((images[:, 0] * 100).round().long(), 4)[0]
        same = (labels[:, :, None] == labels[:, None]).float() + 1e-3 * torch.rand(len(images), 36, 36)
        same = same - torch.diag_embed(0.9 * same.diagonal(dim1=1, dim2=2))
        whole = torch.ones(len(images), 1, 37, 37)
        whole[:, 0, 1:, 1:] = same
        even = torch.ones_like(whole) + 1e-3 * torch.rand_like(whole)
        attentions = [part / part.sum(-1, keepdim=True) for part in (even, whole)]
        tokens = torch.zeros(len(images), 36, 4)
        return Tokens(tokens[:, 0], tokens, (6, 6), attentions=attentions, num_prefix_tokens=1)


def test_a_planted_block_is_found(scenes):
    painted = []
    for one in scenes:
        copy = one.subset(slice(None))
        copy.images = one.masks[:, None].expand(-1, 3, -1, -1).contiguous()
        painted.append(copy)
    report = tree_probe(Planted(), *painted, preprocess=lambda images: images.float() / 100)
    assert report.block != "block 1" and report.parts > 0.7
    # One edge must leave each of the two objects of a scene that does not hold the root: no tree does better.
    assert report.attachment.accuracy >= 1 - 24 / report.attachment.tokens - 1e-9
    assert report.trees.shape == (12, 36) and report.depth > 0
    numbers = report.numbers()
    assert numbers["kappa"] == report.attachment.kappa and all(map(math.isfinite, numbers.values()))


def test_masks_of_both_kinds_of_network(scenes):
    torch.manual_seed(0)
    sender, plain = DependencyViT(**SHAPE).eval(), VisionTransformer(**SHAPE).eval()
    images = torch.randn(3, 3, 24, 24)
    masks = dependency_masks(sender, images, batch_size=2)
    with torch.no_grad():
        tokens = sender(images, return_attention=True)
        attention = plain(images, return_attention=True).attentions[1].mean(1)[:, 1:, 1:]
    assert list(masks) == ["block 1", "block 2", "mean"]
    torch.testing.assert_close(masks["block 2"], tokens.dependencies[1])
    got = dependency_masks(plain, images)["block 2"]
    torch.testing.assert_close(got.sum(1), torch.ones(3, 36))  # every patch sends one unit
    assert torch.equal(got.argmax(1), attention.argmax(2))


def test_flipping_reads_the_other_way(scenes):
    torch.manual_seed(0)
    net = VisionTransformer(**SHAPE, pos_embed="sincos").eval()
    one, other = (tree_probe(net, *scenes, flip=flip) for flip in (False, True))
    assert not torch.equal(one.trees, other.trees)


def test_scenes_without_parts(scenes):
    bare = [one.subset(slice(None)) for one in scenes]
    del bare[1].extras["parts"]
    report = tree_probe(DependencyViT(**SHAPE), *bare)
    assert math.isnan(report.parts) and "parts" not in report.numbers()


def test_bad_input(scenes):
    with pytest.raises(ValueError, match="no softmax attention"):
        tree_probe(small_convnet(3, (4, 8)), *scenes)
    bare = scenes[0].subset(slice(None))
    bare.masks = None
    with pytest.raises(ValueError, match="val_scenes"):
        tree_probe(DependencyViT(**SHAPE), bare, scenes[1])
