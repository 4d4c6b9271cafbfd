"""Which tokens a sequence network reads: change one, see which outputs move."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sslcore.validate import check_float, check_rank, require


@torch.no_grad()
def token_influence(network: Callable[[Tensor], Tensor], sequence: Tensor) -> Tensor:
    """influence[i, j]: the largest change of output i, in any image, when token j is taken from the next image.

        changed = copy(sequence); changed[:, j] = sequence[next image, j]
        influence[i, j] = max(abs(network(changed)[:, i] - network(sequence)[:, i]))

    network: (B, L, D) -> (B, L, any), without randomness (evaluation mode). sequence: (B, L, D), B >= 2 images that
    differ at each place. Returns (L, L): zero above the diagonal for a causal network, zero off it for one that mixes
    nothing. A zero says that this change did nothing, so use several images. Costs L + 1 passes.
    Raises ValueError for other ranks, one image, or a network that changes the number of tokens; TypeError for
    integers.
    """
    check_rank("sequence", sequence, 3)
    check_float("sequence", sequence)
    batch, length = sequence.shape[:2]
    require(batch >= 2, f"sequence: expected at least two images, one lends its tokens to another, got {batch}")
    before, columns = network(sequence), []
    require(
        before.ndim == 3 and before.shape[:2] == (batch, length),
        f"network: expected outputs ({batch}, {length}, any), got {tuple(before.shape)}",
    )
    for place in range(length):
        changed = sequence.clone()
        changed[:, place] = sequence[:, place].roll(1, 0)
        columns.append((network(changed) - before).abs().amax(dim=(0, 2)))
    return torch.stack(columns, dim=1)
