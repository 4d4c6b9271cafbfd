"""VQA on a backbone.

Claims: a frozen backbone keeps weights, buffers and mode; maps sum to one; the order of the words counts; it learns to
read a colour off the cell it asks about; views keep left and red; bad input is refused.
"""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import Tokens, small_convnet
from sslcore.data.imageset import ImageSet
from sslcore.methods import VQA
from sslcore.training import fit
from tests.methods.small_methods import small_batch, small_method, small_set


class Cells(torch.nn.Module):
    """A 2 x 2 grid of cell means."""

    embed_dim, num_prefix_tokens = 3, 0

    def forward(self, images):
        cells = torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(2).mT
        return Tokens(cls_token=cells.mean(1), patch_tokens=cells, grid=(2, 2))


def test_a_frozen_backbone_stays_as_it_is():
    method = small_method("vqa", "convnet", frozen=True)
    before = {name: value.clone() for name, value in method.backbone.state_dict().items()}
    fit(method, small_set(), steps=3, batch_size=8, device="cpu")
    assert all(torch.equal(value, before[name]) for name, value in method.backbone.state_dict().items())
    assert method.train().training and not method.backbone.training and method.words.training
    assert all(weight.grad is None for weight in method.backbone.parameters())


def test_maps_sum_to_one_and_word_order_counts():
    method = small_method("vqa", "convnet", glimpses=3).eval()
    images, tokens, _ = method.views(small_batch(), torch.Generator().manual_seed(0))
    scores, maps = method.fusion(images, tokens)
    assert scores.shape == (8, 3) and maps.shape == (8, 3, 4, 4)
    torch.testing.assert_close(maps.flatten(2).sum(2), torch.ones(8, 3))
    assert torch.equal(method.logits(images, tokens), scores)
    assert not torch.allclose(method.logits(images, tokens.flip(1)), scores)


def test_it_learns_to_look_where_it_is_told():
    """Four cells, each red or blue; the question names a cell."""
    red = torch.rand(512, 2, 2) < 0.5
    images = torch.stack([255 * red, 0 * red, 255 * ~red], 1).byte().repeat_interleave(2, 2).repeat_interleave(2, 3)
    cell = torch.randint(4, (512,))
    answers = red.flatten(1).gather(1, cell[:, None])[:, 0].long()
    data = ImageSet("cells", "train", images, extras={"tokens": cell[:, None], "answers": answers})
    torch.manual_seed(0)
    plain = lambda images, generator=None: images / 255 - 0.5  # noqa: E731
    method = VQA(Cells(), 4, 2, 1, policy=plain)
    fit(method, data, steps=150, batch_size=64, lr=1e-2, seed=0, device="cpu")
    right = method.eval().logits(plain(images), cell[:, None]).argmax(1) == answers
    assert right.float().mean() > 0.95


def test_views_keep_left_and_colour():
    images = torch.zeros(4, 3, 16, 16, dtype=torch.uint8)
    images[:, 0, :, :4] = 255
    batch = {"images": images, "tokens": torch.zeros(4, 4).long(), "answers": torch.zeros(4).long()}
    views, _, _ = small_method("vqa").views(batch, torch.Generator().manual_seed(0))
    assert (views[:, 0, :, 0] > 1.9).all() and (views[:, 0, :, 8:] < -1.9).all() and (views[:, 1:] < -1.9).all()


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="num_answers: expected at least 1, got 0"):
        VQA(small_convnet(3), 5, 0, 4)
    method = small_method("vqa", "convnet")
    with pytest.raises(ValueError, match=r"tokens: expected \(B, 4\), got \(2, 5\)"):
        method.logits(torch.zeros(2, 3, 16, 16), torch.zeros(2, 5).long())
