"""What every method is: a backbone, how views are drawn, what they cost, and what moves after each step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslcore.backbones import ema_copy
from sslcore.backbones.attention import DropPath
from sslcore.validate import check_images, require, unknown
from sslcore.views import ViewPolicy, multicrop

POOLS = ("auto", "cls", "mean")


class Method(nn.Module):
    """Base class: subclasses fill in `views` and `loss`, and `after_step` where something follows the weights.

    backbone: any module whose forward gives Tokens and that has `embed_dim`, `patch_size`, `num_prefix_tokens`.
    pool: which (B, D) vector stands for an image. "auto" is the class token where the net has one and the mean of
        the patch tokens where it has none; "cls" insists on a class token; "mean" always averages the patches.
    img_size: side of the views; None keeps the side of the images that come in.
    group: process group the batch is spread over, set by the training loop; None means this process alone.
    views_early: whether views may be drawn while the step before is under way; False where they read what a step moves.
    needs: names beyond images, labels and index that the method reads from a batch ("masks" or an extra).

    Everything that changes during training is a parameter or a buffer, so state_dict carries the whole run.
    Raises ValueError on an unknown pool, and on "cls" with a net that has no class token.
    """

    group: Any = None
    needs: tuple[str, ...] = ()
    views_early: bool = True

    def __init__(self, backbone: nn.Module, *, pool: str = "auto", img_size: int | None = None) -> None:
        super().__init__()
        if pool not in POOLS:
            unknown("pool", pool, POOLS)
        require(
            pool != "cls" or getattr(backbone, "num_prefix_tokens", 0) > 0,
            f"pool='cls': expected a backbone with a class token, got {type(backbone).__name__} without one",
        )
        require(img_size is None or img_size > 0, f"img_size: expected a side above 0, got {img_size}")
        self.backbone = backbone
        self.pool = pool
        self.img_size = img_size

    def views(self, batch: dict[str, Any], generator: torch.Generator | None = None) -> Any:
        """Views of batch["images"] (B, C, H, W): nested tuples, lists or dicts of tensors, batch dimension first."""
        raise NotImplementedError(f"{type(self).__name__} has no views()")

    def loss(self, views: Any) -> Any:
        """Scalar loss of what `views` gave, or a NamedTuple of named terms with their sum in `.total`."""
        raise NotImplementedError(f"{type(self).__name__} has no loss()")

    def forward(self, views: Any) -> Any:
        """The loss, under the name that DistributedDataParallel calls."""
        return self.loss(views)

    def after_step(self, progress: float) -> None:
        """Called after the optimiser has moved; progress in (0, 1] is the part of the run that is done."""

    def features(self, images: Tensor, backbone: nn.Module | None = None) -> Tensor:
        """(B, D) descriptor of float images, from this method's backbone or from another one (a teacher's)."""
        tokens = (self.backbone if backbone is None else backbone)(images)
        return tokens.pooled if self.pool == "mean" else tokens.cls_token

    def extra_repr(self) -> str:
        """Every plain attribute, so that printing a method shows its hyperparameters."""
        plain = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return ", ".join(f"{name}={value!r}" for name, value in plain.items() if name not in ("training", "group"))


def view_size(method: Method, batch: dict[str, Any]) -> int:
    """Side of the views: the method's own, or that of the images in the batch."""
    check_images("batch['images']", batch["images"])
    return method.img_size or batch["images"].shape[-1]


def teacher_of(module: nn.Module) -> nn.Module:
    """A frozen copy for a moving average to move. It never drops a residual branch: a target should not be noisy."""
    teacher = ema_copy(module)
    for part in teacher.modules():
        if isinstance(part, DropPath):
            part.probability = 0.0
    return teacher


def two_views(
    method: Method,
    batch: dict[str, Any],
    generator: torch.Generator | None,
    policy: Callable | Sequence[Callable] | None,
    default: Callable[[int], Any],
) -> tuple[Tensor, Tensor]:
    """Two independent draws of each image: by one policy twice, by a pair of policies, or by default(size)."""
    policy = default(view_size(method, batch)) if policy is None else policy
    first, second = policy if isinstance(policy, Sequence) else (policy, policy)
    if type(first) is type(second) is ViewPolicy:
        return tuple(multicrop(batch["images"], (first, second), generator))
    return first(batch["images"], generator=generator), second(batch["images"], generator=generator)
