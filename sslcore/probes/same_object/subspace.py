"""The directions a fitted probe reads: spectrum, and what is left with them alone or without them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.metrics import auroc, image_auroc
from sslcore.probes.same_object.pairs import Pairs
from sslcore.validate import check_rank, require

Split = tuple[Tensor, Pairs]


class Subspace(NamedTuple):
    """Orthonormal columns basis (d, k) in the standardised space (x - mean) / std; mean, std (d,)."""

    basis: Tensor
    mean: Tensor
    std: Tensor


def spectrum(fitted: FittedProbe, index: int = 0) -> tuple[Tensor, Tensor]:
    """Eigenvalues (d,) and eigenvectors (d, d) of probe `index`, largest magnitude first; positive = agreement."""
    values, vectors = torch.linalg.eigh(fitted.probe.matrix()[index].detach().double())
    order = values.abs().argsort(descending=True)
    return values[order].float(), vectors[:, order].float()


def sign_aurocs(fitted: FittedProbe, features: Tensor, pairs: Pairs, index: int = 0) -> tuple[float, float]:
    """AUROC of the probe's positive eigenvectors alone, and of its negative ones alone.

    A mark that all tokens of an object share can only show in positive (agreeing) directions. Negative (opposing) ones
    read pairs whose tokens differ in a typical way, such as the left and the right edge of one thing.
    features: (M, T, d), the layer that probe `index` was fitted on.
    """
    check_rank("features", features, 3)
    values, vectors = spectrum(fitted, index)
    tokens = ((features - fitted.mean[index, 0, 0]) / fitted.std[index, 0, 0]).clamp(-5, 5) @ vectors
    parts = tokens[pairs.image, pairs.first] * tokens[pairs.image, pairs.second] * values
    return auroc(parts[:, values > 0].sum(1), pairs.same), auroc(parts[:, values < 0].sum(1), pairs.same)


def probe_subspace(fitted: FittedProbe, k: int, index: int = 0) -> Subspace:
    """The k directions that weigh most in probe `index`."""
    _, vectors = spectrum(fitted, index)
    require(1 <= k <= vectors.shape[1], f"k: expected 1 to {vectors.shape[1]}, got {k}")
    return Subspace(vectors[:, :k], fitted.mean[index, 0, 0], fitted.std[index, 0, 0])


def random_subspace(like: Subspace, seed: int = 0) -> Subspace:
    """As many directions as `like` has, drawn evenly from all."""
    noise = torch.randn(like.basis.shape, generator=torch.Generator().manual_seed(seed))
    return like._replace(basis=torch.linalg.qr(noise)[0].to(like.basis))


def pca_subspace(features: Tensor, like: Subspace) -> Subspace:
    """The leading directions of the standardised tokens (..., d), as many as `like` has."""
    rows = ((features - like.mean) / like.std).reshape(-1, features.shape[-1])
    _, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    return like._replace(basis=vectors.flip(1)[:, : like.basis.shape[1]])


def regression_subspace(features: Tensor, target: Tensor, like: Subspace) -> Subspace:
    """The directions from which a linear map predicts target (..., C) best, as many as `like` has (at most C of them).

    Target = places for a position control, one-hot classes for a class control.
    """
    rows = ((features - like.mean) / like.std).reshape(-1, features.shape[-1]).double()
    aim = target.reshape(len(rows), -1).double()
    gram = rows.T @ rows
    gram += 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, rows.T @ (aim - aim.mean(0)))
    directions = torch.linalg.svd(weight, full_matrices=False)[0][:, : like.basis.shape[1]]
    return like._replace(basis=directions.float())


def projector(basis: Tensor, remove: bool) -> Tensor:
    """(d, d): onto the columns of basis, or onto what is orthogonal to them."""
    onto = basis @ basis.T
    return torch.eye(len(onto), dtype=onto.dtype, device=onto.device) - onto if remove else onto


def steady_rest(basis: Tensor, k: int, draw: Tensor) -> Tensor:
    """The first k columns of basis, and for the others columns that depend on the space they span, on nothing else.

    The last digit of the weights turns eigenvectors of nearly equal eigenvalues, such as the many zeros of a low-rank
    form, among each other, and a probe fitted in their coordinates would then end elsewhere. draw: (d, d), fixed.
    """
    first, draw = basis[:, :k].double(), draw.double()[:, k:]
    columns, triangle = torch.linalg.qr(draw - first @ (first.T @ draw))
    return torch.cat([first, columns * triangle.diagonal().sign()], 1).to(basis)


class Curve(NamedTuple):
    """AUROC by number of directions, with 95 % intervals over images: `values[name][k] = (value, (low, high))`."""

    values: dict[str, dict[int, tuple[float, tuple[float, float]]]]
    whole: float


@torch.no_grad()
def subspace_curves(
    fitted: FittedProbe, train: Split, val: Split, test: Split, ks: tuple[int, ...], index: int = 0, seed: int = 0,
    **fit: object,
) -> Curve:
    """What a probe reads from its own k first directions, and without them.

    Curves: "keep" the fitted probe on P x; "remove" the fitted probe on (I - P) x; "remove, retrained" a new probe on
    (I - P) x, which says whether the information is gone or was only overlooked; "keep, retrained"; and the last two
    for k random directions ("random"). All new probes are fitted in one batched run.
    train, val, test: features (1, M, T, d) and pairs; fit goes to same_object_probe.
    """  # fmt: skip
    check_rank("features", train[0], 4)
    _, vectors = spectrum(fitted, index)
    like = probe_subspace(fitted, 1, index)

    def standard(features: Tensor) -> Tensor:
        return ((features[0] - like.mean) / like.std).clamp(-5, 5)

    tokens = [standard(part[0]) for part in (train, val, test)]
    width = vectors.shape[0]
    noise = torch.randn(width, width, generator=torch.Generator().manual_seed(seed + 1))
    bases = {"": vectors, "random ": torch.linalg.qr(noise)[0]}
    jobs = [(kind + word, k, bases[kind]) for kind in bases for word in ("keep", "remove") for k in ks]
    # In coordinates of the basis what is left out is exactly 0. In the old ones a rounding error of it would stay, and
    # standardising could blow that up again.
    kept = [(torch.arange(width) < k) == name.endswith("keep") for name, k, _ in jobs]
    turned = [steady_rest(basis, k, noise) for _, k, basis in jobs]
    maps = torch.stack([basis * columns for basis, columns in zip(turned, kept, strict=True)])
    found: dict[str, dict[int, tuple[float, tuple[float, float]]]] = {}

    def record(name: str, k: int, logits: Tensor) -> None:
        found.setdefault(name, {})[k] = image_auroc(logits, test[1].same, test[1].image)

    own = fitted.probe.matrix()[index].detach()
    pair = test[1]
    for name, k, basis in jobs:
        moved = tokens[2] @ projector(basis[:, :k], name.endswith("remove"))
        x, y = moved[pair.image, pair.first], moved[pair.image, pair.second]
        record(name, k, ((x @ own) * y).sum(1))
    # The projected tokens of all jobs, side by side: (jobs, M, T, d).
    stacked = [torch.einsum("mtd,jde->jmte", part, maps) for part in tokens]
    again = same_object_probe((stacked[0], train[1]), (stacked[1], val[1]), seed=seed, **fit)
    for (name, k, _), logits in zip(jobs, again.score(stacked[2], pair), strict=True):
        record(f"{name}, retrained", k, logits)
    x, y = tokens[2][pair.image, pair.first], tokens[2][pair.image, pair.second]
    whole = image_auroc(((x @ own) * y).sum(1), pair.same, pair.image, resamples=10)[0]
    return Curve(found, whole)
