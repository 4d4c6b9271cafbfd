"""Writing a run down so that it can be killed at any moment, and taking it up again."""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslcore.training.history import History
from sslcore.training.sharding import gathered, split_states

FORMAT = 1
FREE = {"ranks"}  # settings that may change between a stop and its resume


def describe(method: nn.Module) -> str:
    """A method's networks and hyperparameters as text, without the addresses that differ between processes."""
    return re.sub(r" at 0x[0-9a-f]+", "", repr(method))


def save_checkpoint(
    path: str | Path,
    step: int,
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    history: History,
    settings: dict[str, Any],
    writer: bool = True,
) -> None:
    """Write the run after `step` steps: aside first, then renamed, so that the file at `path` is always a whole one.

    Every rank calls it, because the parts of sharded tensors are put together; only the writer writes. The file does
    not depend on the number of ranks, nor on how they share the work.
    """
    states = gathered(method.state_dict(), writer), gathered(optimizer.state_dict(), writer)
    if not writer:
        return
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "format": FORMAT,
        "step": step,
        "settings": settings,
        "method": states[0],
        "optimizer": states[1],
        "history": history.as_dict(),
    }
    aside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with open(aside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read_checkpoint(path: str | Path, device: torch.device) -> dict[str, Any]:
    """The content of a checkpoint. Raises ValueError on a file that is cut short or is something else."""
    with open(path, "rb") as file:
        try:
            content = torch.load(file, map_location=device, weights_only=True)
        except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, KeyError) as error:
            raise ValueError(
                f"{path}: expected a training checkpoint, got a file that can't be read ({type(error).__name__}); "
                "delete it, or pass resume=False to start over"
            ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: expected a training checkpoint of format {FORMAT}, got another kind of file")
    return content


def check_settings(path: str | Path, saved: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise ValueError unless a checkpoint was written by the same run: each setting that differs is named."""
    differences = []
    for name in sorted((saved.keys() | wanted.keys()) - FREE):
        got, want = saved.get(name), wanted.get(name)
        if got == want:
            continue
        if isinstance(got, str) and isinstance(want, str):
            got, want = _first_difference(got, want)
        differences.append(f"{name} is {got!r} there and {want!r} here")
    if differences:
        told = "; ".join(differences)
        raise ValueError(f"{path}: expected a checkpoint of this run, but {told}. Pass resume=False to start over")


def _first_difference(first: str, second: str) -> tuple[str, str]:
    for a, b in zip(first.splitlines(), second.splitlines(), strict=False):
        if a != b:
            return a.strip(), b.strip()
    return f"{len(first.splitlines())} lines", f"{len(second.splitlines())} lines"


def restore(
    path: str | Path,
    content: dict[str, Any],
    method: nn.Module,
    optimizer: torch.optim.Optimizer,
    settings: dict[str, Any],
) -> History:
    """Put a checkpoint's weights, buffers and optimiser state in place; return the history. Every rank calls it."""
    check_settings(path, content["settings"], settings)
    states = split_states(content, method, optimizer)
    method.load_state_dict(states["method"])
    optimizer.load_state_dict(states["optimizer"])
    return History(**content["history"])
