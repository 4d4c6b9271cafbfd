"""Claims about patchify, unpatchify and masked_pixel_loss, one test each.

- patchify equals slicing and torch's unfold, and unpatchify undoes it.
- The loss equals a loop over hidden patches; predictions at visible patches do not count, nor does the batch order.
- A zero prediction costs (P - 1) / P with norm_pix; each patch's own brightness and contrast then do not matter.
- The gradient is that of finite differences and reaches the prediction only.
- Bad sides, shapes, masks, types and NaN are refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sslcore.objectives import hog_targets, masked_feature_loss, masked_pixel_loss, patchify, unpatchify


@given(
    batch=st.integers(0, 3),
    channels=st.integers(1, 4),
    rows=st.integers(1, 4),
    columns=st.integers(1, 4),
    p=st.integers(1, 4),
)
def test_patchify_equals_slicing_and_unfold_and_inverts(batch, channels, rows, columns, p):
    images = torch.randn(batch, channels, rows * p, columns * p)
    patches = patchify(images, p)
    assert patches.shape == (batch, rows * columns, p * p * channels)
    for b in range(batch):
        for i in range(rows):
            for j in range(columns):
                cut = images[b, :, i * p : (i + 1) * p, j * p : (j + 1) * p].permute(1, 2, 0).flatten()
                assert torch.equal(patches[b, i * columns + j], cut)
    if batch:
        unfolded = F.unfold(images, p, stride=p).reshape(batch, channels, p * p, rows * columns)
        assert torch.equal(patches, unfolded.permute(0, 3, 2, 1).flatten(2))
    assert torch.equal(unpatchify(patches, p, (rows, columns), channels), images)


def test_patchify_keeps_integers():
    images = torch.randint(0, 256, (2, 3, 8, 4), dtype=torch.uint8)
    assert patchify(images, 4).dtype == torch.uint8
    assert torch.equal(unpatchify(patchify(images, 4), 4, (2, 1), 3), images)


def case(batch=3, channels=3, side=8, patch_size=4, dtype=torch.float64):
    images = torch.randn(batch, channels, side, side, dtype=dtype) * 2 + 1
    num = (side // patch_size) ** 2
    pred = torch.randn(batch, num, patch_size**2 * channels, dtype=dtype)
    mask = torch.rand(batch, num) < 0.5
    mask[0, 0], mask[0, 1] = True, False
    return pred, images, mask, patch_size


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize(("channels", "side", "patch_size"), [(3, 8, 4), (1, 6, 2), (2, 4, 1)])
def test_equals_the_loop(norm_pix, channels, side, patch_size):
    pred, images, mask, _ = case(channels=channels, side=side, patch_size=patch_size)
    losses, width = [], side // patch_size
    for b in range(len(images)):
        for n in range(mask.shape[1]):
            if not mask[b, n]:
                continue
            top, left = n // width * patch_size, n % width * patch_size
            target = images[b].numpy()[:, top : top + patch_size, left : left + patch_size].transpose(1, 2, 0).ravel()
            if norm_pix:
                target = (target - target.mean()) / np.sqrt(target.var(ddof=1) + 1e-6)
            losses.append(((pred[b, n].numpy() - target) ** 2).mean())
    loss = masked_pixel_loss(pred, images, mask, patch_size, norm_pix)
    assert loss.item() == pytest.approx(np.mean(losses), rel=1e-9)


@pytest.mark.parametrize(("patch_size", "value"), [(4, 0.97917), (16, 0.99870)])
def test_zero_prediction_of_standardised_patches(patch_size, value):
    images = torch.randn(2, 3, 32, 32)
    num = (32 // patch_size) ** 2
    loss = masked_pixel_loss(torch.zeros(2, num, 3 * patch_size**2), images, torch.ones(2, num).bool(), patch_size)
    assert loss.item() == pytest.approx(1 - 1 / (3 * patch_size**2), abs=1e-5)
    assert loss.item() == pytest.approx(value, abs=1e-4)


def test_perfect_prediction_costs_nothing_and_flat_patches_are_finite():
    _, images, mask, p = case()
    assert masked_pixel_loss(patchify(images, p), images, mask, p, norm_pix=False).item() == 0
    flat = torch.full((1, 3, 4, 4), 0.7)
    assert masked_pixel_loss(torch.zeros(1, 1, 48), flat, torch.ones(1, 1).bool(), 4).item() == pytest.approx(
        0, abs=1e-5
    )


@given(seed=st.integers(0, 999), norm_pix=st.booleans())
def test_invariances(seed, norm_pix):
    torch.manual_seed(seed)
    pred, images, mask, p = case()
    value = masked_pixel_loss(pred, images, mask, p, norm_pix)
    noise = torch.where(mask[..., None], 0.0, torch.randn_like(pred))
    torch.testing.assert_close(masked_pixel_loss(pred + noise, images, mask, p, norm_pix), value, rtol=0, atol=0)
    order = torch.randperm(len(images))
    torch.testing.assert_close(masked_pixel_loss(pred[order], images[order], mask[order], p, norm_pix), value)
    patches = patchify(images, p)
    relit = unpatchify(patches * (torch.rand(3, 4, 1) + 0.5) + torch.randn(3, 4, 1), p, (2, 2), 3)
    changed = masked_pixel_loss(pred, relit, mask, p, norm_pix)
    assert torch.isclose(changed, value, rtol=1e-4) == norm_pix


def test_gradient():
    pred, images, mask, p = case()
    pred.requires_grad_(), images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_pixel_loss(x, images.detach(), mask, p), pred)
    masked_pixel_loss(pred, images, mask, p).backward()
    assert images.grad is None
    assert pred.grad[~mask].abs().max() == 0 and pred.grad[mask].abs().min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    pred, images, mask, p = case(dtype=torch.float32)
    pred, images = pred.to(dtype), (images * 100).to(dtype)
    loss = masked_pixel_loss(pred, images, mask, p, norm_pix=False)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, masked_pixel_loss(pred.float(), images.float(), mask, p, norm_pix=False))


@given(shape=st.lists(st.integers(0, 5), min_size=0, max_size=5), patch_size=st.integers(-2, 5))
def test_patchify_refuses_what_does_not_fit(shape, patch_size):
    images = torch.randn(shape)
    if len(shape) == 4 and patch_size >= 1 and shape[2] % patch_size == 0 and shape[3] % patch_size == 0:
        patchify(images, patch_size)
    else:
        with pytest.raises(ValueError, match="expected"):
            patchify(images, patch_size)


@pytest.mark.parametrize(
    ("grid", "patch_size", "channels"), [((2, 3), 4, 3), ((2, 2), 3, 3), ((2, 2), 4, 1), ((0, 4), 4, 3)]
)
def test_unpatchify_refuses_what_does_not_fit(grid, patch_size, channels):
    with pytest.raises(ValueError, match="expected"):
        unpatchify(torch.randn(2, 4, 48), patch_size, grid, channels)
    with pytest.raises(ValueError, match="dimensions"):
        unpatchify(torch.randn(4, 48), 4, (2, 2), 3)


@pytest.mark.parametrize("norm_pix", [True, False])
def test_predictions_of_hidden_patches_alone(norm_pix):
    pred, images, mask, p = case()
    mask = torch.zeros_like(mask)
    mask[:, torch.randperm(mask.shape[1])[: mask.shape[1] // 2]] = True
    mask[0] = mask[0].roll(1)
    alone = pred[mask].reshape(len(pred), -1, pred.shape[2])
    expected = masked_pixel_loss(pred, images, mask, p, norm_pix)
    torch.testing.assert_close(masked_pixel_loss(alone, images, mask, p, norm_pix), expected)
    mask[0] = True
    with pytest.raises(ValueError, match="expected all patches or the .* hidden ones"):
        masked_pixel_loss(alone, images, mask, p, norm_pix)


def test_bad_input_is_refused():
    pred, images, mask, p = case()
    for arguments, error in (
        ((pred[:2], images, mask, p), ValueError),
        ((pred[:, :3], images, mask, p), ValueError),
        ((pred[..., :5], images, mask, p), ValueError),
        ((pred[0], images, mask, p), ValueError),
        ((pred, images[0], mask, p), ValueError),
        ((pred, images, mask, 3), ValueError),
        ((pred, images, mask[:, :2], p), ValueError),
        ((pred, images, torch.zeros_like(mask), p), ValueError),
        ((pred, images, mask.float(), p), TypeError),
        ((pred, images.byte(), mask, p), TypeError),
        ((pred.long(), images, mask, p), TypeError),
        ((pred * math.nan, images, mask, p), ValueError),
        ((pred, images * math.inf, mask, p), ValueError),
        ((torch.zeros(2, 4, 1), torch.zeros(2, 1, 2, 2), torch.ones(2, 4).bool(), 1), ValueError),
    ):
        with pytest.raises(error, match="expected"):
            masked_pixel_loss(*arguments)


def features(dtype=torch.float64):
    pred, target = torch.randn(2, 3, 5, 7, dtype=dtype)
    mask = torch.rand(3, 5) < 0.5
    mask[0, 0], mask[0, 1] = True, False
    return pred, target, mask


def test_feature_loss_equals_the_loop_and_forgets_visible_patches():
    pred, target, mask = features()
    errors = [(float(pred[b, n, d]) - float(target[b, n, d])) ** 2 for b, n in mask.nonzero() for d in range(7)]
    assert masked_feature_loss(pred, target, mask).item() == pytest.approx(np.mean(errors), rel=1e-12)
    other = torch.where(mask[..., None], pred, 99.0)
    assert masked_feature_loss(other, target, mask).item() == pytest.approx(np.mean(errors), rel=1e-12)
    images = torch.randn(2, 3, 8, 8)
    shown, patches = torch.rand(2, 4) < 2, patchify(images, 4)
    by_pixels = masked_pixel_loss(0.5 * patches, images, shown, 4, norm_pix=False)
    torch.testing.assert_close(masked_feature_loss(0.5 * patches, patches, shown), by_pixels)


def test_feature_loss_of_a_zero_prediction_of_hog_is_one_ninth():
    target = hog_targets(torch.randn(2, 3, 16, 16), 8, 4)
    loss = masked_feature_loss(torch.zeros_like(target), target, torch.ones(2, 4).bool())
    assert loss.item() == pytest.approx(1 / 9, abs=1e-6)


def test_feature_loss_gradient_and_half_precision():
    pred, target, mask = features()
    pred.requires_grad_(), target.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: masked_feature_loss(x, target.detach(), mask), pred)
    masked_feature_loss(pred, target, mask).backward()
    assert target.grad is None and pred.grad[~mask].abs().max() == 0
    half = (100 * pred).detach().half()
    assert masked_feature_loss(half, half + 100, mask).dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"pred": torch.zeros(3, 5)}, ValueError, "pred"),
        ({"target": torch.zeros(3, 5, 6)}, ValueError, "target"),
        ({"target": torch.zeros(3, 5, 7).long()}, TypeError, "target"),
        ({"pred": torch.full((3, 5, 7), torch.nan)}, ValueError, "pred"),
        ({"target": torch.full((3, 5, 7), torch.inf)}, ValueError, "target"),
        ({"mask": torch.zeros(3, 5).bool()}, ValueError, "mask"),
        ({"mask": torch.ones(3, 4).bool()}, ValueError, "mask"),
        ({"mask": torch.ones(3, 5)}, TypeError, "mask"),
    ],
)
def test_feature_loss_refuses_bad_input(change, error, words):
    good = {"pred": torch.zeros(3, 5, 7), "target": torch.ones(3, 5, 7), "mask": torch.ones(3, 5).bool()}
    with pytest.raises(error, match=words):
        masked_feature_loss(**good | change)
