"""Change what lies in a subspace of the tokens at one layer, run the rest of the network, see what it costs.

With X the tokens of an image in standardised coordinates, b = X U the part in the subspace (U orthonormal columns):
  remove   b~_i = mean_j b_j                      nothing is left but the image's mean
  shuffle  b~_i = b_pi(i)                         the statistics stay, the pairing goes
  inject   b~_i = mean of b over i's own object   what binding would be if it were perfect
  anti     b~_i = mean of b over another object   the wrong answer
and the new tokens are X + alpha (b~ - b) U'. Tokens on no object (id 0) are left alone by the last two.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from sslcore.probes.same_object.agreement import blocks_of
from sslcore.probes.same_object.subspace import Subspace
from sslcore.validate import check_rank, require, unknown

EDITS = ("remove", "shuffle", "inject", "anti")


def other_object(labels: Tensor) -> Tensor:
    """For every token the id of another object of its image (B, N): the next one present, in cyclic order; 0 stays 0.
    An image with one object gives its own id."""
    count = int(labels.max()) + 1
    present = torch.zeros(len(labels), count, dtype=torch.bool, device=labels.device).scatter_(1, labels, True)
    present[:, 0] = False
    rank = present.long().cumsum(1) - 1
    total = present.sum(1, keepdim=True)
    wanted = (rank + 1) % total.clamp_min(1)
    ids = torch.arange(count, device=labels.device).expand_as(rank)
    by_rank = torch.zeros_like(rank).scatter_add(1, torch.where(present, rank, 0), torch.where(present, ids, 0))
    table = torch.where(present, by_rank.gather(1, wanted), 0)
    return table.gather(1, labels)


def object_means(values: Tensor, labels: Tensor, of: Tensor) -> Tensor:
    """Mean of values (B, N, k) over the tokens of object `of` (B, N): (B, N, k). labels (B, N) ids."""
    count = int(max(labels.max(), of.max())) + 1
    index = labels[..., None].expand_as(values)
    sums = values.new_zeros(len(values), count, values.shape[2]).scatter_add(1, index, values)
    sizes = values.new_zeros(len(values), count).scatter_add(1, labels, torch.ones_like(labels, dtype=values.dtype))
    means = sums / sizes.clamp_min(1)[..., None]
    return means.gather(1, of[..., None].expand_as(values))


class Edit:
    """One intervention, a function of patch tokens (B, N, D); see the top of this file.

    labels (B, N): ids of the tokens, for "inject" and "anti". permutation (B, N): for "shuffle"; None draws one from
    seed. match: another Subspace; each image's change is then scaled to the energy of the same edit in that subspace,
    for controls that must not differ in size. `energy` tells, after a call, the squared size of the change over that of
    the standardised tokens about their image's mean. alpha = 0 gives the tokens back bit for bit.
    """

    def __init__(
        self,
        kind: str,
        subspace: Subspace,
        alpha: float = 1.0,
        labels: Tensor | None = None,
        permutation: Tensor | None = None,
        match: Subspace | None = None,
        seed: int = 0,
    ) -> None:
        if kind not in EDITS:
            unknown("edit", kind, EDITS)
        require(kind not in ("inject", "anti") or labels is not None, f"labels: {kind} needs the tokens' objects")
        self.kind, self.subspace, self.alpha, self.match = kind, subspace, alpha, match
        self.labels, self.permutation, self.seed = labels, permutation, seed
        self.sizes = [0.0, 0.0]  # squared change, and squared spread of the tokens, over all calls

    @property
    def energy(self) -> float:
        """Share of the tokens' spread that the edit moved, over all calls so far (NaN before the first)."""
        return self.sizes[0] / self.sizes[1] if self.sizes[1] else float("nan")

    def moved(self, tokens: Tensor, basis: Tensor) -> Tensor:
        """Change (B, N, D) in standardised coordinates at alpha = 1."""
        part = tokens @ basis
        if self.kind == "remove":
            new = part.mean(1, keepdim=True)
        elif self.kind == "shuffle":
            new = part.gather(1, self.order(tokens)[..., None].expand_as(part))
        else:
            labels = self.labels.to(tokens.device)
            of = labels if self.kind == "inject" else other_object(labels)
            new = torch.where(labels[..., None] > 0, object_means(part, labels, of), part)
        return (new - part) @ basis.T

    def order(self, tokens: Tensor) -> Tensor:
        """The permutation of each image's tokens (B, N)."""
        if self.permutation is None:
            noise = torch.rand(tokens.shape[:2], generator=torch.Generator().manual_seed(self.seed))
            return noise.argsort(1).to(tokens.device)
        return self.permutation.to(tokens.device)

    def __call__(self, tokens: Tensor) -> Tensor:
        check_rank("tokens", tokens, 3)
        standard = (tokens - self.subspace.mean) / self.subspace.std
        change = self.moved(standard, self.subspace.basis)
        size = change.square().sum((1, 2))
        if self.match is not None:
            like = (tokens - self.match.mean) / self.match.std
            wanted = self.moved(like, self.match.basis).square().sum((1, 2))
            change = change * (wanted / size.clamp_min(1e-12)).sqrt()[:, None, None]
            size = change.square().sum((1, 2))
        spread = (standard - standard.mean(1, keepdim=True)).square().sum((1, 2))
        self.sizes = [self.sizes[0] + float(self.alpha**2 * size.sum()), self.sizes[1] + float(spread.sum())]
        return tokens + self.alpha * change * self.subspace.std


@contextmanager
def intervened(backbone: nn.Module, layer: int, edit: Callable[[Tensor], Tensor]) -> Iterator[nn.Module]:
    """The backbone with its patch tokens changed at `layer` (0 = what enters the first block, l = output of block l).

    edit: (B, N, D) -> (B, N, D), such as an Edit; prefix tokens are left alone. Whatever forward call is made inside,
    also under a mask, passes through it. (At layer 0 the recorded `layers[0]` still shows the tokens before the edit.)
    """
    blocks, prefix = blocks_of(backbone), backbone.num_prefix_tokens
    require(0 <= layer <= len(blocks), f"layer: expected 0 to {len(blocks)}, got {layer}")

    def change(sequence: Tensor) -> Tensor:
        patches = edit(sequence[:, prefix:])
        return torch.cat([sequence[:, :prefix], patches], 1) if prefix else patches

    def before(_module: nn.Module, inputs: tuple) -> tuple:
        return change(inputs[0]), *inputs[1:]

    def after(_module: nn.Module, _inputs: tuple, output: Tensor | tuple) -> Tensor | tuple:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    if layer == 0:
        handle = blocks[0].register_forward_pre_hook(before)
    else:
        handle = blocks[layer - 1].register_forward_hook(after)
    try:
        yield backbone
    finally:
        handle.remove()


@torch.no_grad()
def run_from(
    backbone: nn.Module, sequence: Tensor, layer: int, edit: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Final, normalised patch tokens (B, N, D) of a network that starts at `layer` from stored tokens.

    sequence: (B, P + N, D), `layers[layer]` of the Tokens; edit: applied to its patches first. The same as a forward
    call inside `intervened`, without the blocks before. For networks without rotary positions.
    """
    require(getattr(backbone, "angles", None) is None, "run_from: rotary positions are not supported")
    prefix = backbone.num_prefix_tokens
    if edit is not None:
        sequence = torch.cat([sequence[:, :prefix], edit(sequence[:, prefix:])], 1)
    for block in list(blocks_of(backbone))[layer:]:
        output = block(sequence)
        sequence = output[0] if isinstance(output, tuple) else output
    return getattr(backbone, "model", backbone).norm(sequence)[:, prefix:]
