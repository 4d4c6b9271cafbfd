"""What a run leaves behind: its curves, and the check that stops it when the loss is no longer a number."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from sslcore.distributed import mean_over_ranks


@dataclass
class History:
    """Curves of one run, one entry a step; they go on where they stopped after a resume.

    steps, loss, lr: step number, total loss (mean over ranks) and learning rate.
    terms: each named term of the loss, where the loss has several.
    elapsed: seconds since the start, without the time between a stop and its resume.
    values: each value that the callback returned, as (step, value) pairs.
    batch_size: images a step, over all ranks.
    """

    batch_size: int = 0
    steps: list[int] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    elapsed: list[float] = field(default_factory=list)
    values: dict[str, list[tuple[int, float]]] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return self.elapsed[-1] if self.elapsed else 0.0

    @property
    def images_seen(self) -> int:
        """Images drawn so far, counting an image again each time it comes back."""
        return self.batch_size * len(self.steps)

    def add_values(self, step: int, values: Mapping[str, float] | None) -> None:
        """Append what a callback returned after `step` steps; None adds nothing."""
        for name, value in (values or {}).items():
            self.values.setdefault(name, []).append((step, float(value)))

    def as_dict(self) -> dict[str, Any]:
        """Plain lists and numbers, for JSON and for the checkpoint."""
        return asdict(self)

    def plot(self, ax: Any = None) -> Any:
        """Draw the loss and its terms against the step, and return the axes."""
        if ax is None:
            import matplotlib.pyplot as plt

            _, ax = plt.subplots(figsize=(5, 3))
        ax.plot(self.steps, self.loss, label="loss", color="grey")
        for name, curve in self.terms.items():
            ax.plot(self.steps, curve, label=name, linewidth=1)
        ax.set_xlabel("step")
        ax.set_ylabel("loss")
        if self.terms:
            ax.legend(frameon=False)
        return ax


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite. Carries step, method, and `last`: the last finite loss, terms and lr."""

    def __init__(self, step: int, method: str, last: dict[str, float]) -> None:
        self.step, self.method, self.last = step, method, last
        told = ", ".join(f"{name}={value:.4g}" for name, value in last.items()) or "none, it was the first step"
        super().__init__(f"{method}: loss is not finite at step {step}; last finite values: {told}")


def named_terms(result: Any) -> dict[str, Tensor]:
    """{"total": loss, name: term, ...} of what a method's loss returned."""
    if isinstance(result, Tensor):
        return {"total": result}
    return {"total": result.total, **{name: getattr(result, name) for name in result._fields if name != "total"}}


class Recorder:
    """Collects losses on the device and reads them in one transfer every `every` steps.

    Reading a CUDA value makes the host wait for the device. So losses stay there until `flush`, which averages them
    over the ranks, checks them and appends them to the history. On every rank alike, so that all stop together.
    """

    def __init__(self, history: History, method: str, group: Any, every: int) -> None:
        self.history, self.method, self.group, self.every = history, method, group, every
        self.pending: list[tuple[int, float, dict[str, Tensor]]] = []
        self.start = time.perf_counter() - history.seconds

    def add(self, step: int, lr: float, terms: dict[str, Tensor]) -> None:
        """Keep the terms of one step; every `every` steps, flush. Raises NonFiniteLossError."""
        self.pending.append((step, lr, {name: term.detach() for name, term in terms.items()}))
        if len(self.pending) >= self.every:
            self.flush()

    def flush(self) -> None:
        """Move what is pending into the history. Raises NonFiniteLossError at the first bad step."""
        if not self.pending:
            return
        stacked = torch.stack([torch.stack([t.float() for t in terms.values()]) for _, _, terms in self.pending])
        rows = mean_over_ranks(stacked, self.group).tolist()
        elapsed = time.perf_counter() - self.start
        pending, self.pending = self.pending, []
        for (step, lr, terms), row in zip(pending, rows, strict=True):
            values = dict(zip(terms, row, strict=True))
            if not all(math.isfinite(value) for value in row):
                raise self.non_finite(step)
            self.history.steps.append(step)
            self.history.lr.append(lr)
            self.history.loss.append(values.pop("total"))
            self.history.elapsed.append(elapsed)
            for name, value in values.items():
                self.history.terms.setdefault(name, []).append(value)

    @contextmanager
    def watching(self, step: int) -> Iterator[None]:
        """Turn an objective's refusal of NaN input into the NonFiniteLossError of this step."""
        try:
            yield
        except ValueError as error:
            # check_finite's words: a vanished or exploded network is the run's failure, not a wrong argument.
            if "NaN or infinite" not in str(error):
                raise
            self.flush()
            raise self.non_finite(step) from error

    def non_finite(self, step: int) -> NonFiniteLossError:
        """The error for a bad step, with what was last known to be finite."""
        history = self.history
        last: dict[str, float] = {}
        if history.steps:
            last = {"step": history.steps[-1], "loss": history.loss[-1], "lr": history.lr[-1]}
            last |= {name: curve[-1] for name, curve in history.terms.items()}
        return NonFiniteLossError(step, self.method, last)
