"""What a training step costs, counted from shapes: operations, bytes kept, bytes between ranks.

Nothing here runs the step. A multiplication and an addition are two operations. Counted are the matrix products and
convolutions; norms, activations and views are left out, so a time predicted from these counts is that of a machine
whose speed was measured on a similar network (`Machine.fitted`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sslcore.backbones import DependencyViT, VisionTransformer
from sslcore.kernels.covariance import gram_is_cheaper
from sslcore.validate import check_positive, require, unknown

FLOAT = 4  # bytes of a float32
OPTIMIZER_NUMBERS = {"adamw": 2, "sgd": 1, "lars": 1}  # kept for each parameter, beside the weight and its gradient


class Work(NamedTuple):
    """One image through one network. forward, backward: operations. kept: numbers saved for the backward pass."""

    forward: float
    backward: float
    kept: float
    weights: int


def vit_work(net: VisionTransformer, img_size: int, keep: float = 1.0) -> Work:
    """A vision transformer on a square image; keep: part of the patches that go in (MAE: a quarter).

        embed = 2 N * (p * p * C) * D                                   # its input needs no gradient: backward once
        block = 2 L * D * 3D + 2 L * D * D                              # queries, keys, values; projection
              + 4 L * L * D                                             # scores, and weighted values
              + 4 L * D * M                                             # MLP of hidden width M
        forward = embed + depth * block, backward = embed + depth * 2 * block

    N patches that go in, L = N and the prefix tokens. Kept per block: (8 D + 2 M) L numbers, which are the inputs of
    two norms, four linear layers, GELU and the attention; the attention weights themselves are never stored.
    """
    side, dim = net.patch_size, net.embed_dim
    require(img_size % side == 0, f"img_size: expected a multiple of patch_size {side}, got {img_size}")
    patches = int((img_size // side) ** 2 * keep)
    length, hidden = patches + net.num_prefix_tokens, net.blocks[0].mlp.fc1.out_features
    embed = 2 * patches * side * side * net.in_chans * dim
    block = 2 * length * dim * 4 * dim + 4 * length * length * dim + 4 * length * dim * hidden
    depth = len(net.blocks)
    kept = patches * side * side * net.in_chans + depth * length * (8 * dim + 2 * hidden) + length * dim
    return Work(embed + depth * block, embed + 2 * depth * block, kept, _weights(net))


def pruned_operations(net: VisionTransformer, img_size: int, lengths: Sequence[int]) -> float:
    """Forward operations of one image when block l reads lengths[l] tokens (Lite.lengths without its last entry).

    Counted as in vit_work, block by block. A DependencyViT pays for its two small parts too, where it has them:
        selector = 2 L * D * H, controller = 2 L * D * D/2 + 2 L * D/2
    The embedding reads the whole image. Sorting the tokens is left out.
    """
    require(len(lengths) == len(net.blocks), f"lengths: expected {len(net.blocks)}, one a block, got {len(lengths)}")
    side, dim = net.patch_size, net.embed_dim
    require(img_size % side == 0, f"img_size: expected a multiple of patch_size {side}, got {img_size}")
    total = 2.0 * (img_size // side) ** 2 * side * side * net.in_chans * dim
    for length, block in zip(lengths, net.blocks, strict=True):
        check_positive("lengths", length)
        total += 8 * length * dim**2 + 4 * length**2 * dim + 4 * length * dim * block.mlp.fc1.out_features
        if isinstance(net, DependencyViT):
            parts = [part for part in (block.attn.selector, block.attn.controller) if part is not None]
            weights = sum(weight.numel() for part in parts for weight in part.parameters() if weight.ndim == 2)
            total += 2 * length * weights
    return total


def conv_work(net: nn.Module, img_size: int, in_chans: int = 3) -> Work:
    """A convolutional network, from the shapes that one image takes through it (no numbers are computed).

        layer = 2 * (C_in / groups) * kernel * kernel * C_out * h * w   # backward twice that, once for the first layer

    Kept: input and output of every convolution, each map once; behind a norm and ReLU in place these are all there is.
    """
    shadow, counts, seen = copy.deepcopy(net).to("meta"), [], {}

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if not isinstance(layer, nn.MaxPool2d):
            area = output.shape[2:].numel() if isinstance(layer, nn.Conv2d) else 1
            counts.append(2.0 * layer.weight.numel() * area)
        for tensor in (inputs[0], output):
            seen[id(tensor)] = tensor

    for layer in shadow.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.MaxPool2d)):
            layer.register_forward_hook(count)
    shadow.eval()(torch.empty(1, in_chans, img_size, img_size, device="meta"))
    kept = sum(tensor.numel() for tensor in seen.values())
    require(len(counts) > 0, f"net: expected convolutions, found none in {type(net).__name__}")
    return Work(sum(counts), 2 * sum(counts) - counts[0], kept, _weights(net))


def backbone_work(net: nn.Module, img_size: int) -> Work:
    """vit_work or conv_work, whichever the network is."""
    if isinstance(net, VisionTransformer):
        return vit_work(net, img_size)
    return conv_work(net, img_size, getattr(net, "in_chans", 3))


def _weights(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())


def step_operations(work: Work, images: int, views: int = 2, teacher_views: int = 0) -> float:
    """Operations of the networks in a step: `views` of each image go forward and back, a teacher's go forward only."""
    return images * (views * (work.forward + work.backward) + teacher_views * work.forward)


def step_memory(
    work: Work, images: int, views: int = 2, optimizer: str = "adamw", ranks: int = 1, fsdp: bool = False,
    teacher: bool = False, bytes_kept: int = FLOAT,
) -> float:  # fmt: skip
    """Bytes on one rank at the end of the forward pass: what is kept of its images, weights, gradients, optimiser.

    images: on this rank. fsdp: the last three are divided by the number of ranks (what is gathered at a time is left
    out). bytes_kept: of one saved number, 2 under autocast.
    """
    if optimizer not in OPTIMIZER_NUMBERS:
        unknown("optimizer", optimizer, OPTIMIZER_NUMBERS)
    state = work.weights * (2 + OPTIMIZER_NUMBERS[optimizer] + teacher) * FLOAT
    return images * views * work.kept * bytes_kept + state / (ranks if fsdp else 1)


class Exchange(NamedTuple):
    """One collective: what each rank puts in, in numbers."""

    kind: str  # "all_reduce", "all_gather", "reduce_scatter" or "broadcast"
    numbers: int

    def received(self, ranks: int) -> float:
        """Bytes that reach each rank, by the ring algorithms: an all-reduce is a reduce-scatter and an all-gather."""
        share = {"all_reduce": 2 * (ranks - 1) / ranks, "all_gather": ranks - 1.0}
        share |= {"reduce_scatter": (ranks - 1) / ranks, "broadcast": float(ranks > 1)}
        return share[self.kind] * self.numbers * FLOAT


def _there_and_back(*numbers: int) -> list[Exchange]:
    return [Exchange("all_reduce", count) for count in numbers] * 2  # the adjoint of a mean over ranks is the same mean


def _gathered(rows: int, dim: int, ranks: int) -> list[Exchange]:
    return [Exchange("all_gather", rows * dim), Exchange("all_reduce", ranks * rows * dim)]


def _nt_xent(rows: int, dim: int, ranks: int) -> list[Exchange]:
    return _gathered(2 * rows, dim, ranks) + _there_and_back(1)


def _info_nce(rows: int, dim: int, ranks: int) -> list[Exchange]:
    return _gathered(rows, dim, ranks) + _there_and_back(1)


def _barlow_twins(rows: int, dim: int, ranks: int) -> list[Exchange]:
    small = gram_is_cheaper(rows * ranks, dim, same=False)
    energy = 2 * _gathered(rows, dim, ranks) if small else _there_and_back(dim * dim)
    return _there_and_back(dim, dim, dim, dim, dim) + energy


def _vicreg(rows: int, dim: int, ranks: int) -> list[Exchange]:
    small = gram_is_cheaper(rows * ranks, dim, same=True)
    energy = _gathered(rows, dim, ranks) if small else _there_and_back(dim * dim)
    return _there_and_back(dim, dim, dim, dim, 1) + 2 * energy


def _sigreg(rows: int, dim: int, ranks: int, views: int = 2, num_slices: int = 1024, knots: int = 17) -> list[Exchange]:
    sums = views * num_slices * (knots - 1) * 2 + 1
    return [Exchange("broadcast", dim * num_slices), *_there_and_back(sums)]


def _sinkhorn_knopp(rows: int, dim: int, ranks: int, num_iters: int = 3) -> list[Exchange]:
    return [Exchange("all_gather", dim)] * num_iters


# What each objective exchanges in a step (forward, and backward where it has one): rows and width of one rank's z.
EXCHANGES: dict[str, Callable[..., list[Exchange]]] = {
    "nt_xent": _nt_xent,
    "info_nce": _info_nce,
    "barlow_twins": _barlow_twins,
    "vicreg": _vicreg,
    "sigreg": _sigreg,
    "sinkhorn_knopp": _sinkhorn_knopp,  # of one view; dim is the number of prototypes
}


def objective_exchanges(name: str, rows: int, dim: int, ranks: int) -> list[Exchange]:
    """Collectives of an objective on `ranks` ranks with (rows, dim) embeddings a view on each; none on one rank."""
    if name not in EXCHANGES:
        unknown("objective", name, EXCHANGES)
    return EXCHANGES[name](rows, dim, ranks) if ranks > 1 else []


def weight_exchanges(weights: int, ranks: int, fsdp: bool = False) -> list[Exchange]:
    """Collectives for the weights: DDP averages the gradient; FSDP2 gathers twice and scatters the mean gradient."""
    if ranks == 1:
        return []
    if not fsdp:
        return [Exchange("all_reduce", weights)]
    return [Exchange("all_gather", weights // ranks)] * 2 + [Exchange("reduce_scatter", weights)]


class Machine(NamedTuple):
    """operations: a second, as training reaches. link: bytes a second into one rank. fixed: seconds of every step."""

    operations: float
    link: float = float("inf")
    fixed: float = 0.0

    def seconds(
        self, operations: float, exchanges: Sequence[Exchange] = (), ranks: int = 1, hidden: float = 0.0
    ) -> float:
        """Time of a step with this much work on each rank. hidden: part of the traffic that computing covers."""
        traffic = sum(exchange.received(ranks) for exchange in exchanges)
        return self.fixed + operations / self.operations + (1 - hidden) * traffic / self.link

    @classmethod
    def fitted(cls, points: Sequence[tuple[float, float]]) -> Machine:
        """From (operations, seconds) of at least two steps: a line, least squares in relative error."""
        require(len(points) >= 2, f"points: expected at least two, got {len(points)}")
        work, seconds = torch.tensor(points, dtype=torch.float64).T
        for number in (*work, *seconds):
            check_positive("points", float(number))
        # Relative: each row divided by its own time. Scaled, because operations are of the order of 1e9.
        scale = work.max()
        rows = torch.stack([work / scale / seconds, 1 / seconds], dim=1)
        slope, fixed = torch.linalg.lstsq(rows, torch.ones(len(points), 1, dtype=torch.float64)).solution.flatten()
        if fixed < 0:  # no step takes less than nothing
            fixed, slope = torch.zeros(()), rows[:, 0].sum() / rows[:, 0].square().sum()
        return cls(float(scale / slope), fixed=float(fixed))
