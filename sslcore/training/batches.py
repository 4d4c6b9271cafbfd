"""Where batches come from: data held on the device, indexed there, in an order that the seed and the epoch fix."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslcore.training.ranks import Ranks
from sslcore.validate import check_images, require


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring steps and ranks draw unrelated numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


class StoredBatches:
    """Batches of a set that fits on the device.

    Every epoch visits all images once in a fresh order; the images left over when the size does not divide the set
    are skipped in that epoch. The order depends on (seed, epoch) alone, so step k can be drawn without steps 0..k-1.

    data: ImageSet, or a tensor of images (N, C, H, W). needs: further fields to index ("masks" or an extra).
    Raises ValueError when a batch is larger than the set, or a needed field is missing.
    """

    def __init__(self, data: Any, seed: int, device: torch.device, needs: tuple[str, ...] = ()) -> None:
        images = data if isinstance(data, Tensor) else data.images
        check_images("data", images)
        self.seed = seed
        self.device = device
        self.fields = {"images": images.to(device)}
        if not isinstance(data, Tensor):
            for name in ("labels", *needs):
                value = getattr(data, name, None)
                value = data.extras.get(name) if value is None and data.extras else value
                if value is not None:
                    self.fields[name] = value.to(device)
        missing = [name for name in needs if name not in self.fields]
        require(not missing, f"data: expected {', '.join(missing)} with the images, got none")
        self.epoch, self.order = -1, torch.empty(0)

    def __len__(self) -> int:
        return len(self.fields["images"])

    def __call__(self, step: int, batch_size: int, part: slice) -> dict[str, Any]:
        """Rows `part` of the batch of a step."""
        per_epoch = len(self) // batch_size
        epoch, position = divmod(step, per_epoch)
        if epoch != self.epoch:
            # Drawn on the CPU, so that the order is the same on every device.
            generator = torch.Generator().manual_seed(mix_seed(0, self.seed, epoch))
            self.epoch, self.order = epoch, torch.randperm(len(self), generator=generator).to(self.device)
        index = self.order[position * batch_size : (position + 1) * batch_size][part]
        batch = {name: value.index_select(0, index) for name, value in self.fields.items()}
        return {"labels": None, **batch, "index": index}


class ViewSource:
    """This rank's views of any step. Which images and which draws depends on (seed, step, rank) and nothing else.

    shared: draw the views of the whole batch on every rank and keep this rank's rows, so that the views are those of
    a single process.
    """

    def __init__(
        self, method: Any, data: Any, batch_size: int, seed: int, ranks: Ranks, device: torch.device, shared: bool
    ) -> None:
        self.method, self.data, self.batch_size, self.seed, self.ranks = method, data, batch_size, seed, ranks
        self.shared = shared and ranks.size > 1
        self.generator = torch.Generator(device=device)

    @torch.no_grad()
    def __call__(self, step: int) -> Any:
        """What method.views gives for the batch of a step."""
        part = self.ranks.part(self.batch_size)
        rows, drawer = (slice(0, self.batch_size), 0) if self.shared else (part, self.ranks.rank)
        self.generator.manual_seed(mix_seed(2, self.seed, step, drawer))
        if isinstance(self.data, StoredBatches):
            batch = self.data(step, self.batch_size, rows)
        else:
            batch = self.data(step, rows.stop - rows.start, self.generator)
            require(
                isinstance(batch, dict) and "images" in batch,
                f"data: expected the function to return a dict with 'images', got {type(batch).__name__}",
            )
        views = self.method.views(batch, self.generator)
        return map_tensors(views, lambda tensor: tensor[part]) if self.shared else views


def map_tensors(views: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """The same nested tuples, lists, dicts and dataclasses with `change` applied to every tensor."""
    if isinstance(views, Tensor):
        return change(views)
    if isinstance(views, dict):
        return {name: map_tensors(value, change) for name, value in views.items()}
    if isinstance(views, tuple) and hasattr(views, "_fields"):
        return type(views)(*(map_tensors(value, change) for value in views))
    if isinstance(views, (list, tuple)):
        return type(views)(map_tensors(value, change) for value in views)
    if is_dataclass(views) and not isinstance(views, type):
        return replace(views, **{f.name: map_tensors(getattr(views, f.name), change) for f in fields(views)})
    return views
