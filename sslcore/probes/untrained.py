"""The control that every trained network must beat: the same architecture before training."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sslcore.validate import require


def untrained_copy(backbone: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of backbone with fresh random weights; the original and torch's global random state stay untouched.

    Every module with reset_parameters is reset by it, inner ones first, so that a network which draws its own layers
    has the last word: the course's backbones come back with the distribution they start training from. Parameters on
    modules without it are drawn from a normal of std 0.02 if they have two or more axes, else they keep their values.
    Raises ValueError for a backbone with nothing to reset.
    """
    fresh = copy.deepcopy(backbone)
    reset = 0
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for module in reversed(list(fresh.modules())):
            if callable(getattr(module, "reset_parameters", None)):
                module.reset_parameters()
                reset += 1
                continue
            for parameter in module.parameters(recurse=False):
                if parameter.ndim >= 2:
                    nn.init.trunc_normal_(parameter.data, std=0.02)
    require(reset > 0, f"{type(backbone).__name__}: no module has reset_parameters; pass an untrained network yourself")
    return fresh
