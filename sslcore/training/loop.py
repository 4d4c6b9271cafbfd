"""The training loop. One for every method, on one process or on many, and it can be killed at any step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sslcore.data.streaming import ImageStream
from sslcore.training.batches import StoredBatches, StreamedBatches, ViewsAhead, ViewSource, map_tensors, mix_seed
from sslcore.training.checkpoint import describe, read_checkpoint, restore, save_checkpoint
from sslcore.training.history import History, Recorder, named_terms
from sslcore.training.optimizers import make_optimizer, set_lr, warmup_cosine
from sslcore.training.progress import progress_bar
from sslcore.training.ranks import Ranks
from sslcore.training.sharding import gathered, needs_parts_only, sharded_copy
from sslcore.validate import check_positive, require, unknown

PRECISIONS = ("auto", "fp32", "bf16")


def fit(
    method: nn.Module,
    data: Any,
    *,
    steps: int,
    batch_size: int = 256,
    lr: float = 1e-3,
    optimizer: Any = "adamw",
    weight_decay: float = 0.05,
    warmup: float = 0.1,
    min_lr: float = 0.0,
    clip_norm: float | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
    precision: str = "auto",
    compile: bool = False,
    channels_last: bool = False,
    activation_checkpointing: bool = False,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 0,
    resume: bool = True,
    callback: Callable[[int, nn.Module], dict[str, float] | None] | None = None,
    callback_every: int = 0,
    progress: bool | None = None,
    views_per_rank: bool = True,
    fsdp: bool = False,
) -> History:
    """Train a method in place and return its curves.

    data: ImageSet, images (N, C, H, W), an ImageStream (see stream_images) that reads from disk as it goes, or a
        function (step, batch_size, generator) -> dict with "images".
    steps, batch_size: how long, and images a step over all ranks. warmup: part of the steps in which lr rises.
    optimizer: "adamw", "sgd", "lars", or a function of (groups, lr). Vectors and scalars are never decayed.
    precision: "bf16" runs the networks under autocast; "auto" does so on CUDA only. Views are drawn in float32.
    compile: compile each network of the method; it loses where the run is short and where shapes change. On a CPU core
        it did not win (small conv net 29 ms a step, 34 compiled; small ViT 355 and 353, after 10 to 18 s of compiling).
        channels_last: lay images and convolutions out channels last.
    activation_checkpointing: let vision transformers forget what is inside their blocks and compute it again backward:
        a third more time, a fraction of the memory, the same gradients.
    checkpoint: file written every checkpoint_every steps (0: at the end only). If it is there and resume is True the
        run goes on from it; on the CPU, with the same number of threads, it ends on exactly the weights of an
        unbroken run. A finished run is loaded, not repeated. The number of ranks may change: images stay those of the
        step, views too with views_per_rank=False, and the weights then agree up to rounding.
    callback: called as callback(step, method) every callback_every steps (0: at the end only), in eval mode without
        gradients, after `step` steps; the numbers it returns go to History.values. On every rank.
    progress: show a bar. None shows one on a terminal or in a notebook, never under CI.
    views_per_rank: under torchrun each rank draws its own views. False makes every rank draw the views of the whole
        batch and keep its part, which costs the ranks that much more work and gives the numbers of one process.
    fsdp: under torchrun, spread parameters, gradients and optimiser state over the ranks (FSDP2) instead of keeping
        them whole on each. The method stays where it is and gets the whole weights at the end and for callbacks; a data
        function that reads the method sees weights as old as that.

    Order and randomness depend on (seed, step) alone, so the same seed gives the same numbers on the same machine; the
    caller's random state is left as it was. Under torchrun, with a process group, the batch is spread over the ranks.
    Batches that do not divide evenly over the ranks are refused, images left over at the end of an epoch are skipped.
    Raises ValueError on bad settings or a checkpoint of another run, NonFiniteLossError when the loss is no number.
    """
    ranks = Ranks()
    device = ranks.device(device)
    settings = {
        "method": type(method).__name__, "structure": describe(method), "steps": steps, "batch_size": batch_size,
        "lr": lr, "optimizer": getattr(optimizer, "__qualname__", optimizer), "weight_decay": weight_decay,
        "warmup": warmup, "min_lr": min_lr, "clip_norm": clip_norm, "seed": seed, "precision": precision,
        "ranks": ranks.size, "views_per_rank": views_per_rank, "images": _number_of_images(data),
    }  # fmt: skip
    _check_settings(settings)
    require(not (fsdp and compile), "compile: not together with fsdp, which has not been tried on a GPU yet")
    was_training, whole = method.training, method
    if fsdp:
        method = sharded_copy(whole, ranks, device)
    method.to(device)
    if channels_last and not fsdp:  # FSDP2 takes contiguous weights only; the images are laid out all the same
        method.to(memory_format=torch.channels_last)
    source = data
    if not callable(data):
        kind = StreamedBatches if isinstance(data, ImageStream) else StoredBatches
        source = kind(data, seed, device, method.needs)
    views_of = ViewSource(method, source, batch_size, seed, ranks, device, shared=not views_per_rank)
    descent = make_optimizer(optimizer, method, lr, weight_decay)
    found = None
    if checkpoint is not None and resume and Path(checkpoint).exists():
        found = read_checkpoint(checkpoint, torch.device("cpu") if fsdp else device)  # the whole may not fit elsewhere
    done = found["step"] if found else 0
    ranks.same("steps found in the checkpoint", done)  # a file on one machine's own disk is not there for the others
    history = restore(checkpoint, found, method, descent, settings) if found else History(batch_size=batch_size)
    del found
    network = method if fsdp else ranks.wrap(method, device)
    if compile:
        for child in method.children():
            child.compile(dynamic=False)  # crops come in two sizes; symbolic ones break resized positions

    if activation_checkpointing:
        able = [module for module in method.modules() if hasattr(module, "set_grad_checkpointing")]
        require(len(able) > 0, "activation_checkpointing: expected a vision transformer in the method, got none")
        for module in able:
            module.set_grad_checkpointing()
    if device.type == "cuda" and isinstance(source, StoredBatches) and method.views_early:
        views_of = ViewsAhead(views_of, steps, device)

    recorder = Recorder(history, settings["method"], ranks.group, every=1 if device.type == "cpu" else 50)
    half = precision == "bf16" or (precision == "auto" and device.type == "cuda")
    method.train()
    own_draws = torch.random.fork_rng([device] if device.type == "cuda" else [])
    with closing(views_of), ranks.entered(method), own_draws, needs_parts_only(settings["method"]):
        bar = progress_bar(done, steps, settings["method"], progress if ranks.rank == 0 else False)
        for step in bar:
            rate = warmup_cosine(step, steps, lr, warmup, min_lr)
            set_lr(descent, rate)
            torch.manual_seed(mix_seed(1, seed, step, ranks.rank))  # dropout and stochastic depth
            views = views_of(step)
            if channels_last:
                views = map_tensors(views, _channels_last)
            with torch.autocast(device.type, torch.bfloat16, enabled=half), recorder.watching(step):
                terms = named_terms(network(views))
            recorder.add(step, rate, terms)
            descent.zero_grad(set_to_none=True)
            terms["total"].backward()
            if clip_norm is not None:
                nn.utils.clip_grad_norm_(method.parameters(), clip_norm)
            descent.step()
            done = step + 1
            method.after_step(done / steps)

            if callback is not None and _due(done, steps, callback_every):
                recorder.flush()
                if fsdp:
                    whole.load_state_dict(gathered(method.state_dict()))
                history.add_values(done, _ask(callback, done, whole))
            if checkpoint is not None and _due(done, steps, checkpoint_every):
                recorder.flush()  # a checkpoint never holds weights whose loss was not a number
                save_checkpoint(checkpoint, done, method, descent, history, settings, writer=ranks.rank == 0)
                ranks.same("steps done", done)  # whoever returns finds the file
            if history.loss:
                bar.set_postfix_str(f"loss {history.loss[-1]:.4f}", refresh=False)
        recorder.flush()
    if fsdp:
        whole.load_state_dict(gathered(method.state_dict()))
    whole.train(was_training)
    return history


def _number_of_images(data: Any) -> int | None:
    return None if callable(data) else len(data)


def _check_settings(run: dict[str, Any]) -> None:
    steps, batch_size, lr, seed = run["steps"], run["batch_size"], run["lr"], run["seed"]
    require(isinstance(steps, int) and steps >= 1, f"steps: expected a whole number of at least 1, got {steps!r}")
    require(isinstance(seed, int) and seed >= 0, f"seed: expected a whole number of at least 0, got {seed!r}")
    check_positive("lr", lr)
    require(0 <= run["warmup"] < 1, f"warmup: expected a part of the run in [0, 1), got {run['warmup']}")
    require(0 <= run["min_lr"] <= lr, f"min_lr: expected a value in [0, lr={lr}], got {run['min_lr']}")
    if run["clip_norm"] is not None:
        check_positive("clip_norm", run["clip_norm"])
    if run["precision"] not in PRECISIONS:
        unknown("precision", run["precision"], PRECISIONS)
    images = run["images"]
    require(images is None or batch_size <= images, f"batch_size: expected at most {images} images, got {batch_size}")


def _due(done: int, steps: int, every: int) -> bool:
    return done == steps or (every > 0 and done % every == 0)


def _ask(callback: Callable, done: int, method: nn.Module) -> dict[str, float] | None:
    method.eval()
    with torch.no_grad():
        values = callback(done, method)
    method.train()
    return values


def _channels_last(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
