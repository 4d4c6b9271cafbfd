"""Masked modelling: hide patches, regress their pixels or features of them."""

from __future__ import annotations

from torch import Tensor

from sslcore.objectives.precision import full_precision, without_autocast
from sslcore.validate import (
    check_finite,
    check_float,
    check_mask,
    check_rank,
    check_same_device,
    require,
    values_are_checked,
)


def patchify(images: Tensor, patch_size: int) -> Tensor:
    """Cut images into flat patches, row by row; within a patch the order is (row, column, channel).

        patches[b, i * w + j] = images[b, :, i*p:(i+1)*p, j*p:(j+1)*p].permute(1, 2, 0).flatten()

    images: (B, C, H, W) of any dtype and number of channels, H and W multiples of patch_size >= 1.
    Returns (B, H/p * W/p, p * p * C). Raises ValueError for wrong rank or sides that do not divide.
    Source: He et al. 2022 (MAE), section 3.
    """
    check_rank("images", images, 4)
    batch, channels, height, width = images.shape
    require(
        patch_size >= 1 and height % patch_size == 0 and width % patch_size == 0,
        f"patch_size: expected a divisor of the sides {height} x {width}, got {patch_size}",
    )
    rows, columns = height // patch_size, width // patch_size
    patches = images.reshape(batch, channels, rows, patch_size, columns, patch_size)
    return patches.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, patch_size * patch_size * channels)


def unpatchify(patches: Tensor, patch_size: int, grid: tuple[int, int], channels: int) -> Tensor:
    """Put flat patches back together; the inverse of patchify.

    patches: (B, h * w, p * p * C). grid: (h, w). channels: C. Returns (B, C, h * p, w * p).
    Raises ValueError when the shape does not fit grid, patch_size and channels.
    """
    check_rank("patches", patches, 3)
    rows, columns = grid
    expected = (patches.shape[0], rows * columns, patch_size * patch_size * channels)
    require(tuple(patches.shape) == expected, f"patches: expected shape {expected}, got {tuple(patches.shape)}")
    pixels = patches.reshape(-1, rows, columns, patch_size, patch_size, channels).permute(0, 5, 1, 3, 2, 4)
    return pixels.reshape(-1, channels, rows * patch_size, columns * patch_size)


def take_hidden(values: Tensor, mask: Tensor, hidden: int) -> Tensor:
    """Rows (B, N, D) of hidden patches alone, (B, hidden, D) in rising order of patch.

    mask: (B, N) bool with `hidden` True in every row; another count raises ValueError where values are checked.
    """
    if values_are_checked(mask):
        counts = sorted(set(mask.sum(dim=1).tolist()))
        require(counts == [hidden], f"pred: expected all patches or the {counts} hidden ones, got {hidden}")
    # A stable sort lists the hidden patches in rising order, and unlike a boolean index needs no answer back.
    ids = mask.int().argsort(dim=1, descending=True, stable=True)[:, :hidden]
    return values.gather(1, ids[..., None].expand(-1, -1, values.shape[2]))


@without_autocast
def masked_pixel_loss(pred: Tensor, images: Tensor, mask: Tensor, patch_size: int, norm_pix: bool = True) -> Tensor:
    """MAE: mean squared error at the hidden patches, against each patch's own standardised pixels.

        target = patchify(images)                                      # (B, N, P)
        if norm_pix:
            target[b, n] = (target[b, n] - mean) / sqrt(var + 1e-6)    # over its P values, unbiased variance
        return mean(mean((pred[b, n] - target[b, n]) ** 2) for b, n where mask[b, n])

    pred: (B, N, P) predicted patches, P = patch_size**2 * C in patchify's order; or only the hidden ones, (B, H, P) in
    rising order of patch, where every image hides H. images: (B, C, H, W) floating point,
    on the scale the network saw. mask: (B, N) bool, True = hidden; visible patches do not count. norm_pix needs P >= 2.
    No gradient reaches images. Returns a scalar: (P - 1) / P for a zero prediction of patches whose variance is well
    above 1e-6. Raises ValueError for shapes that do not fit, an empty mask or NaN; TypeError for integer images or a
    mask that is not boolean. Source: He et al. 2022 (MAE), section 3 "Reconstruction target".
    """
    check_rank("pred", pred, 3)
    check_float("pred", pred)
    check_rank("images", images, 4)
    check_float("images", images)
    check_finite("pred", pred)
    check_finite("images", images)
    check_same_device("pred", pred, "images", images)
    target = patchify(full_precision(images).detach(), patch_size)
    require(
        (pred.shape[0], pred.shape[2]) == (target.shape[0], target.shape[2]) and pred.shape[1] <= target.shape[1],
        f"pred: expected {tuple(target.shape)} for images {tuple(images.shape)} and patch_size {patch_size}, "
        f"or the hidden patches of it, got {tuple(pred.shape)}",
    )
    check_mask("mask", mask, tuple(target.shape[:2]))
    check_same_device("pred", pred, "mask", mask)
    hidden = pred.shape[1]
    if hidden < target.shape[1]:
        target = take_hidden(target, mask, hidden)
    if norm_pix:
        require(target.shape[2] >= 2, "norm_pix: expected patches of at least two values, got one")
        mean, var = target.mean(dim=2, keepdim=True), target.var(dim=2, keepdim=True)
        target = (target - mean) / (var + 1e-6).sqrt()
    error = (full_precision(pred) - target).square().mean(dim=2)
    if hidden < mask.shape[1]:
        return error.mean()
    return (error * mask).sum() / mask.sum()


@without_autocast
def masked_feature_loss(pred: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """MaskFeat: mean squared error between predicted and true features of the hidden patches.

        return mean((pred[b, n, d] - target[b, n, d]) ** 2 for b, n where mask[b, n], for d)

    pred, target: (B, N, D) floating point, such as `hog_targets` of the images; mask: (B, N) bool, True = hidden;
    visible patches do not count. No gradient reaches target. Returns a scalar. Raises ValueError for shapes that do not
    fit, an empty mask or NaN; TypeError for integers or a mask that is not boolean.
    Source: Wei et al. 2022 (MaskFeat), section 3.
    """
    check_rank("pred", pred, 3)
    check_float("pred", pred)
    check_float("target", target)
    check_same_device("pred", pred, "target", target)
    fits = tuple(target.shape) == tuple(pred.shape) and pred.shape[2] >= 1
    require(fits, f"target: expected the shape of pred {tuple(pred.shape)}, D >= 1, got {tuple(target.shape)}")
    check_finite("pred", pred)
    check_finite("target", target)
    check_mask("mask", mask, tuple(pred.shape[:2]))
    check_same_device("pred", pred, "mask", mask)
    error = (full_precision(pred) - full_precision(target).detach()).square().mean(dim=2)
    return (error * mask).sum() / mask.sum()
