"""Where batches come from: held on the device or read from disk, in an order that the seed and the epoch fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from sslcore.data.streaming import ImageStream, Rows
from sslcore.training.ranks import Ranks
from sslcore.validate import check_images, require


def mix_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, so that neighbouring steps and ranks draw unrelated numbers."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


PREFETCH = 2  # batches decoded ahead by each worker


def _as_it_is(rows: Rows) -> Rows:
    return rows


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
            order = torch.randperm(len(self), generator=generator)
            self.epoch, self.order = epoch, order.to(self.device, non_blocking=True)
        index = self.order[position * batch_size : (position + 1) * batch_size][part]
        batch = {name: value.index_select(0, index) for name, value in self.fields.items()}
        return {"labels": None, **batch, "index": index}


def _wanted(
    stream: ImageStream, seed: int, step: int, batch_size: int, part: slice
) -> Iterator[list[tuple[int, float]]]:
    """Row and place of the cut of each image of each step from `step` on."""
    per_epoch, now = len(stream) // batch_size, -1
    while True:
        epoch, position = divmod(step, per_epoch)
        if epoch != now:
            now, drawn = epoch, mix_seed(0, seed, epoch)
            order, places = stream.order(drawn), stream.places(drawn)
        rows = order[position * batch_size : (position + 1) * batch_size][part]
        yield list(zip(rows.tolist(), places[rows].tolist(), strict=True))
        step += 1


class StreamedBatches:
    """Batches of a set that stays on disk, decoded by worker processes some steps ahead.

    Order, left-over images and what a step holds are as in StoredBatches: a function of (seed, step), whatever the
    number of ranks and workers, so a resumed run reads only what is still to come.

    Raises DataFileError at the step whose image cannot be read, unless the stream skips such images.
    """

    def __init__(self, stream: ImageStream, seed: int, device: torch.device, needs: tuple[str, ...] = ()) -> None:
        missing = [name for name in needs if name != "labels" or stream.labels is None]
        require(not missing, f"data: expected {', '.join(missing)} with the images, but a stream has labels at most")
        self.stream, self.seed, self.device = stream, seed, device
        self.expected: tuple[int, int, slice] | None = None
        self.loaded: Iterator[Rows] | None = None

    def __call__(self, step: int, batch_size: int, part: slice) -> dict[str, Any]:
        """Rows `part` of the batch of a step. The step after it is already under way; any other starts afresh."""
        if self.expected != (step, batch_size, part):
            self.close()
            self.loaded = iter(self._loader(step, batch_size, part))
        rows = self.stream.received(next(self.loaded))
        self.expected = (step + 1, batch_size, part)
        labels = None if self.stream.labels is None else self.stream.labels[rows.index].to(self.device)
        images = rows.images.to(self.device, non_blocking=True)
        return {"labels": labels, "images": images, "index": rows.index.to(self.device)}

    def _loader(self, step: int, batch_size: int, part: slice) -> DataLoader:
        workers = self.stream.workers
        return DataLoader(
            self.stream,
            batch_sampler=_wanted(self.stream, self.seed, step, batch_size, part),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=self.device.type == "cuda",
            prefetch_factor=PREFETCH if workers else None,
            generator=torch.Generator(),  # else starting workers would move the caller's random state
        )

    def close(self) -> None:
        """Stop the workers."""
        self.loaded, self.expected = None, None


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

    def close(self) -> None:
        """Stop what reads ahead, if anything does."""
        if isinstance(self.data, StreamedBatches):
            self.data.close()

    @torch.no_grad()
    def __call__(self, step: int) -> Any:
        """What method.views gives for the batch of a step."""
        part = self.ranks.part(self.batch_size)
        rows, drawer = (slice(0, self.batch_size), 0) if self.shared else (part, self.ranks.rank)
        self.generator.manual_seed(mix_seed(2, self.seed, step, drawer))
        if isinstance(self.data, (StoredBatches, StreamedBatches)):
            batch = self.data(step, self.batch_size, rows)
        else:
            count = rows.stop - rows.start
            batch = self.data(step, count, self.generator)
            require(
                isinstance(batch, dict) and "images" in batch,
                f"data: expected the function to return a dict with 'images', got {type(batch).__name__}",
            )
            # Ranks with unequal parts would hang in the next collective, or weigh their images unequally.
            got = len(batch["images"])
            require(got == count, f"data: expected the function to return {count} images at step {step}, got {got}")
        views = self.method.views(batch, self.generator)
        return map_tensors(views, lambda tensor: tensor[part]) if self.shared else views


class ViewsAhead:
    """Views drawn one step ahead on a second CUDA stream, while the network works on those of this step.

    draw: what gives the views of a step. steps: of the whole run. Views depend on (seed, step, rank) alone, so drawing
    them early changes nothing.
    """

    def __init__(self, draw: Callable[[int], Any], steps: int, device: torch.device) -> None:
        self.draw, self.steps, self.device = draw, steps, device
        self.stream = torch.cuda.Stream(device)
        self.stream.wait_stream(torch.cuda.current_stream(device))  # the data may still be on its way
        self.waiting: dict[int, Any] = {}

    def close(self) -> None:
        """Forget what was drawn for a step that will not come."""
        self.waiting.clear()

    def _start(self, step: int) -> Any:
        with torch.cuda.stream(self.stream):
            return self.draw(step)

    def __call__(self, step: int) -> Any:
        """The views of a step, for the current stream to use; the next ones are started."""
        views = self.waiting.pop(step) if step in self.waiting else self._start(step)
        current = torch.cuda.current_stream(self.device)
        current.wait_stream(self.stream)
        map_tensors(views, lambda tensor: _used_on(tensor, current))
        if step + 1 < self.steps:
            self.waiting[step + 1] = self._start(step + 1)
        return views


def _used_on(tensor: Tensor, stream: Any) -> Tensor:
    tensor.record_stream(stream)  # its memory is free again only once that stream is done with it
    return tensor


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
