"""What an intervention costs: the method's own loss, image by image; segmentation; grouping."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import VisionTransformer
from sslcore.methods import MAE
from sslcore.probes.same_object.outcomes import (
    grouping,
    grouping_ari,
    mean_interval,
    mean_iou,
    reconstruction_errors,
    segmentation_head,
)
from sslcore.views import random_mask


@pytest.mark.parametrize("norm_pix", [False, True])
def test_the_mean_over_images_is_the_methods_loss(norm_pix):
    torch.manual_seed(0)
    method = MAE(VisionTransformer(32, 8, embed_dim=24, depth=1), decoder_dim=12, decoder_depth=1, norm_pix=norm_pix)
    images, indices = torch.randn(6, 3, 32, 32), random_mask(6, 16, 0.75)
    errors = reconstruction_errors(method, images, indices)
    assert errors.shape == (6,)
    torch.testing.assert_close(errors.mean(), method.loss((images, indices)).detach(), rtol=1e-5, atol=1e-6)


def clusters(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (20, 24), generator=generator)
    centres = 6 * torch.randn(20, 4, 5, generator=generator)
    tokens = centres.gather(1, labels[..., None].expand(-1, -1, 5))
    return tokens + 0.3 * torch.randn(tokens.shape, generator=generator), labels


def test_grouping_finds_planted_clusters_and_noise_gives_none():
    tokens, labels = clusters()
    used = labels > 0
    scores = grouping_ari(tokens, labels, used)
    assert float(scores.mean()) > 0.97
    assert bool((grouping(tokens, used, torch.full((20,), 3))[~used] == -1).all())
    noise = grouping_ari(torch.randn(20, 24, 5, generator=torch.Generator().manual_seed(1)), labels, used)
    assert abs(float(noise.mean())) < 0.06
    alone = grouping_ari(tokens, torch.ones_like(labels), used)
    assert torch.equal(alone, torch.ones_like(alone))


def test_the_head_is_least_squares_and_iou_is_counted_by_hand():
    tokens, _ = clusters(3)
    classes = (tokens[..., 0] > 0).long()
    head = segmentation_head(tokens, classes, 2)
    assert float((head.predict(tokens) == classes).float().mean()) > 0.85
    said, true = torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1]]), torch.tensor([[0, 1, 1, 1], [1, 1, -1, 1]])
    torch.testing.assert_close(mean_iou(said, true, 2), torch.tensor([(1 / 2 + 2 / 3) / 2, 1.0]))


def test_the_interval_is_over_images():
    mean, low, high = mean_interval(torch.randn(400, generator=torch.Generator().manual_seed(0)))
    assert low < mean < high and high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)


def test_bad_input_is_named():
    tokens, labels = torch.randn(2, 6, 3), torch.arange(6).expand(2, 6) % 3
    used = torch.ones(2, 6, dtype=torch.bool)
    for call, message in (
        (lambda: mean_iou(labels, labels[:1], 3), "equal shapes"),
        (lambda: mean_iou(labels, labels, 0), "num_classes"),
        (lambda: grouping_ari(tokens, labels[:1], used), "labels: expected shape"),
        (lambda: grouping_ari(tokens, labels, used[:, :5]), "used: expected shape"),
        (lambda: grouping_ari(tokens * torch.nan, labels, used), "finite"),
        (lambda: grouping_ari(tokens[:0], labels[:0], used[:0]), "at least one image"),
        (lambda: mean_interval(torch.full((3,), torch.nan)), "none but NaN"),
        (lambda: mean_interval(torch.randn(2, 3)), "1 dimensions"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(TypeError, match="booleans"):
        grouping_ari(tokens, labels, used.long())
