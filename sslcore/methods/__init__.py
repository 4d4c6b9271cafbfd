"""One file a paper: which views, which networks, which objective."""

from __future__ import annotations

from typing import Any

from torch import nn

from sslcore.methods.mae import MAE
from sslcore.methods.method import Method
from sslcore.methods.simclr import SimCLR
from sslcore.methods.supervised import Supervised
from sslcore.validate import unknown

METHODS: dict[str, type[Method]] = {
    "mae": MAE,
    "simclr": SimCLR,
    "supervised": Supervised,
}


def create_method(name: str, backbone: nn.Module, **settings: Any) -> Method:
    """A method by its name in METHODS, with its keyword arguments. Raises ValueError listing the known names."""
    if name not in METHODS:
        unknown("method", name, METHODS)
    return METHODS[name](backbone, **settings)


__all__ = ["MAE", "METHODS", "Method", "SimCLR", "Supervised", "create_method"]
