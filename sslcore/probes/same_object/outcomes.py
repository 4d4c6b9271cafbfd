"""What an intervention may cost: reconstruction, segmentation, grouping; one number an image, for intervals."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sslcore.objectives import patchify
from sslcore.probes.same_object.intervention import intervened
from sslcore.validate import check_finite, check_float, check_rank, check_same_shape, check_tensor, require


@torch.no_grad()
def reconstruction_errors(method: nn.Module, images: Tensor, indices: Any) -> Tensor:
    """A masked autoencoder's own loss of every image (B,): mean squared error on its hidden patches.

    method: anything with reconstruct(images, indices), backbone and norm_pix, such as methods.MAE; images (B, C, H, W)
    float, indices from views.random_mask. The mean over images is the method's loss, as all hide equally many.
    """
    predicted = method.reconstruct(images, indices)
    target = patchify(images, method.backbone.patch_size)
    if method.norm_pix:
        target = (target - target.mean(2, keepdim=True)) / (target.var(2, keepdim=True) + 1e-6).sqrt()
    error = (predicted - target).square().mean(2) * indices.mask
    return error.sum(1) / indices.mask.sum(1)


def reconstruction_rise(
    method: nn.Module, layer: int, edit: Any, images: Tensor, indices: Any, before: Tensor
) -> Tensor:
    """How much an Edit at one layer of the encoder raises the errors `before` of every image (B,)."""
    with intervened(method.backbone, layer, edit):
        return reconstruction_errors(method, images, indices) - before


class SegmentationHead(NamedTuple):
    """A linear map from final tokens to classes, fitted in closed form (ridge on one-hot answers)."""

    weight: Tensor
    bias: Tensor

    def predict(self, tokens: Tensor) -> Tensor:
        """Class (B, N) of tokens (B, N, D)."""
        return (tokens.double() @ self.weight + self.bias).argmax(-1)


def segmentation_head(tokens: Tensor, classes: Tensor, num_classes: int, ridge: float = 1e-2) -> SegmentationHead:
    """Fit a SegmentationHead on tokens (B, N, D) with classes (B, N) in 0..num_classes - 1; -1 = left out."""
    check_rank("tokens", tokens, 3)
    rows = tokens[classes >= 0].double()
    aim = torch.nn.functional.one_hot(classes[classes >= 0], num_classes).double()
    centre, middle = rows.mean(0), aim.mean(0)
    rows = rows - centre
    gram = rows.T @ rows
    gram += ridge * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, rows.T @ (aim - middle))
    return SegmentationHead(weight, middle - centre @ weight)


def mean_iou(predicted: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Mean over the classes an image shows (in truth or answer) of intersection over union: (B, N) -> (B,).

    predicted, classes: (B, N) whole numbers; -1 in classes = left out. NaN for an image that shows no class.
    Raises ValueError for unequal shapes, or num_classes < 1.
    """
    check_rank("predicted", predicted, 2)
    check_tensor("classes", classes)
    check_same_shape("predicted", predicted, "classes", classes)
    require(num_classes >= 1, f"num_classes: expected at least 1, got {num_classes}")
    found = []
    for number in range(num_classes):
        said, true = (predicted == number) & (classes >= 0), classes == number
        union = (said | true).sum(1)
        found.append(torch.where(union > 0, (said & true).sum(1) / union.clamp_min(1), torch.nan))
    return torch.stack(found).nanmean(0)


def grouping(tokens: Tensor, used: Tensor, counts: Tensor, num_iters: int = 10) -> Tensor:
    """k-means within each image: labels (B, N) from 0, -1 where unused. No draws.

    tokens (B, N, D), used (B, N) bool, counts (B,) clusters of each image. Starts from the used token farthest from the
    mean and goes on to the one farthest from all chosen; then Lloyd's steps, all images side by side.
    """
    check_rank("tokens", tokens, 3)
    batch, _, width = tokens.shape
    most = int(counts.max())
    rows = torch.arange(batch, device=tokens.device)
    unused = ~used
    centre = (tokens * used[..., None]).sum(1) / used.sum(1).clamp_min(1)[:, None]
    nearest = (tokens - centre[:, None]).square().sum(-1).masked_fill(unused, -1)
    starts = []
    for number in range(most):
        starts.append(tokens[rows, nearest.argmax(1)])
        gap = (tokens - starts[-1][:, None]).square().sum(-1).masked_fill(unused, -1)
        nearest = gap if number == 0 else torch.minimum(nearest, gap)
    centroids = torch.stack(starts, 1)
    absent = torch.arange(most, device=tokens.device) >= counts[:, None]
    for step in range(num_iters + 1):
        distance = torch.cdist(tokens, centroids).masked_fill(absent[:, None], torch.inf)
        labels = distance.argmin(-1)
        if step < num_iters:
            member = torch.nn.functional.one_hot(labels, most).to(tokens) * used[..., None]
            sizes = member.sum(1)[..., None]
            means = member.mT @ tokens / sizes.clamp_min(1)
            centroids = torch.where(sizes > 0, means, centroids)
    return labels.masked_fill(unused, -1)


def grouping_ari(tokens: Tensor, labels: Tensor, used: Tensor) -> Tensor:
    """Adjusted Rand index (B,) between the objects of the used tokens and k-means of them, k = the objects there.

    tokens (B, N, D), labels (B, N) ids, used (B, N) bool. 1 = the same grouping, 0 = chance; one object alone gives 1.
    Raises ValueError for shapes that do not fit, tokens that are not finite, or an image without a used token.
    """
    from sklearn.metrics import adjusted_rand_score

    check_rank("tokens", tokens, 3)
    check_float("tokens", tokens)
    check_finite("tokens", tokens)
    for name, given in (("labels", labels), ("used", used)):
        check_tensor(name, given)
        shape = tuple(tokens.shape[:2])
        require(tuple(given.shape) == shape, f"{name}: expected shape {shape}, got {tuple(given.shape)}")
    if used.dtype != torch.bool:
        raise TypeError(f"used: expected booleans, got {used.dtype}")
    require(len(tokens) >= 1, "tokens: expected at least one image, got none")
    require(bool(used.any(1).all()), "used: expected at least one token in every image")
    counts = torch.tensor([len(row[keep].unique()) for row, keep in zip(labels, used, strict=True)])
    found = grouping(tokens, used, counts.to(tokens.device))
    scores = [adjusted_rand_score(t[k].cpu(), f[k].cpu()) for t, f, k in zip(labels, found, used, strict=True)]
    return torch.tensor(scores, dtype=torch.float64)


def mean_interval(values: Tensor, resamples: int = 2000, seed: int = 0) -> tuple[float, float, float]:
    """Mean of one number an image (B,) and its 95 % bootstrap interval over images: (mean, low, high); NaN left out.

    Raises ValueError for another rank, or where no number is left.
    """
    check_rank("values", values, 1)
    check_float("values", values)
    values = values[~values.isnan()].double()
    require(len(values) >= 1, "values: expected at least one number, got none but NaN")
    drawn = torch.randint(len(values), (resamples, len(values)), generator=torch.Generator().manual_seed(seed))
    low, high = torch.quantile(values[drawn].mean(1), torch.tensor([0.025, 0.975], dtype=values.dtype)).tolist()
    return float(values.mean()), low, high


class SceneReadout:
    """Linear figure-ground segmentation and grouping, fitted on untouched final tokens and then held fixed.

    tokens (B, N, D), labels and purity (B, N) of the training scenes. Called on final tokens of other scenes it gives,
    a number an image, "IoU" of object and ground (mean of the two) and "ARI" of k-means of the object tokens with the
    objects (NaN where an image has fewer than two objects in clear tokens).
    """

    def __init__(self, tokens: Tensor, labels: Tensor, purity: Tensor, min_purity: float = 0.6) -> None:
        self.min_purity = min_purity
        self.head = segmentation_head(tokens, self.classes(labels, purity), 2)
        self.mean, self.std = tokens.mean((0, 1)), tokens.std((0, 1)).clamp_min(1e-6)

    def classes(self, labels: Tensor, purity: Tensor) -> Tensor:
        """1 = object, 0 = ground, -1 = no clear case."""
        return torch.where(purity >= self.min_purity, (labels > 0).long(), -1)

    def __call__(self, tokens: Tensor, labels: Tensor, purity: Tensor) -> dict[str, Tensor]:
        classes = self.classes(labels, purity)
        used = classes == 1
        several = torch.tensor([len(row[keep].unique()) > 1 for row, keep in zip(labels, used, strict=True)])
        scores = torch.full((len(tokens),), torch.nan, dtype=torch.float64)
        scores[several] = grouping_ari(((tokens - self.mean) / self.std)[several], labels[several], used[several])
        return {"IoU": mean_iou(self.head.predict(tokens), classes, 2), "ARI": scores}
