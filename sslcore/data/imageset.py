"""ImageSet: images, labels, instance masks and captions as tensors that travel together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from sslcore.validate import check_rank, require


@dataclass(repr=False)
class ImageSet:
    """A data set that fits in memory.

    Attributes:
        name, split: what it is, for tables and errors.
        images: (N, C, H, W) uint8, C = 1 or 3.
        labels: (N,) int64 in [0, len(classes)), or None.
        classes: class names, or None.
        masks: (N, H, W) uint8 instance ids, 0 = background, or None.
        captions: N strings, or None.
        extras: further named values. A tensor or list of length N is taken to be per image and follows `subset`;
            anything else is kept as it is. A shared value that may happen to have N entries belongs in a tuple.

    Raises:
        ValueError, TypeError: shapes or types that do not fit together.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor | None = None
    classes: list[str] | None = None
    masks: Tensor | None = None
    captions: list[str] | None = None
    extras: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_rank("images", self.images, 4)
        count, channels, height, width = self.images.shape
        require(channels in (1, 3), f"images: expected 1 or 3 channels, got shape {tuple(self.images.shape)}")
        if self.images.dtype != torch.uint8:
            raise TypeError(f"images: expected uint8, got {self.images.dtype}")
        if self.labels is not None:
            check_rank("labels", self.labels, 1)
            if self.labels.dtype != torch.int64:
                raise TypeError(f"labels: expected int64, got {self.labels.dtype}")
            require(len(self.labels) == count, f"labels: expected {count}, one an image, got {len(self.labels)}")
            # Reading a value from another device would stall it; sets are built on the CPU and checked there.
            if count and self.classes is not None and self.labels.device.type == "cpu":
                low, high = (int(value) for value in self.labels.aminmax())
                require(
                    low >= 0 and high < len(self.classes),
                    f"labels: expected values in [0, {len(self.classes)}), got {low} to {high}",
                )
        if self.masks is not None:
            expected = (count, height, width)
            require(tuple(self.masks.shape) == expected, f"masks: expected {expected}, got {tuple(self.masks.shape)}")
            if self.masks.dtype != torch.uint8:
                raise TypeError(f"masks: expected uint8, got {self.masks.dtype}")
        if self.captions is not None:
            require(len(self.captions) == count, f"captions: expected {count}, got {len(self.captions)}")

    def __len__(self) -> int:
        return len(self.images)

    def _per_image(self, value: Any) -> bool:
        return (
            isinstance(value, Tensor | list)
            and not (isinstance(value, Tensor) and value.ndim == 0)
            and len(value) == len(self)
        )

    def _tensors(self, change: Any, lists: Any) -> Self:
        """A copy with `change` applied to every per-image tensor and `lists` to every per-image list."""

        def apply(value: Any) -> Any:
            if not self._per_image(value):
                return value
            return change(value) if isinstance(value, Tensor) else lists(value)

        shared = {"name", "split", "classes", "extras"}
        changed = {f.name: apply(getattr(self, f.name)) for f in fields(self) if f.name not in shared}
        return replace(self, **changed, extras={key: apply(value) for key, value in self.extras.items()})

    def subset(self, index: Tensor | slice | list[int]) -> Self:
        """The chosen images with everything that belongs to them. index: (M,) int64, (N,) bool, a slice or a list.

        Raises IndexError where an index is out of range.
        """
        if isinstance(index, slice):
            index = torch.arange(len(self))[index]
        index = torch.as_tensor(index)
        if index.dtype == torch.bool:
            require(len(index) == len(self), f"index: expected {len(self)} booleans, got {len(index)}")
            index = index.nonzero().flatten()
        index = index.long()
        chosen = index.tolist()
        return self._tensors(lambda tensor: tensor[index.to(tensor.device)], lambda items: [items[i] for i in chosen])

    def to(self, device: str | torch.device) -> Self:
        """The same set with every per-image tensor on `device`."""
        return self._tensors(lambda tensor: tensor.to(device), lambda items: items)

    def __repr__(self) -> str:
        parts = [name for name in ("labels", "masks", "captions") if getattr(self, name) is not None]
        carries = ", ".join(parts + sorted(self.extras)) or "nothing else"
        return f"{type(self).__name__}({self.name}/{self.split}: {tuple(self.images.shape)}, with {carries})"
