"""How long a step takes on this machine, on one process or several: what the counts in cost.py are checked against."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import nn

from sslcore.training.optimizers import make_optimizer
from sslcore.training.ranks import Ranks, leave_group
from sslcore.validate import require


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Seconds(NamedTuple):
    """wall: by the clock on the wall. processor: of this process, all its threads; other programs disturb it less."""

    wall: float
    processor: float


def seconds_of(job: Callable[[], Any], repeats: int = 5, device: torch.device | str = "cpu") -> Seconds:
    """Medians over calls of `job`, after one call that does not count."""
    require(repeats >= 1, f"repeats: expected at least 1, got {repeats}")
    taken = []
    for _ in range(repeats + 1):
        started = time.perf_counter(), time.process_time()
        job()
        _finish(torch.device(device))
        taken.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    return Seconds(*(statistics.median(column) for column in zip(*taken[1:], strict=True)))


def step_seconds(method: nn.Module, views: Any, repeats: int = 5, network: nn.Module | None = None) -> Seconds:
    """Median seconds of a training step on views that are there already: loss, gradient, AdamW.

    The method moves. network: what runs the loss, where it is not the method itself (DistributedDataParallel).
    """
    descent = make_optimizer("adamw", method, 1e-4, 0.05)
    network = method if network is None else network
    method.train()

    def step() -> None:
        descent.zero_grad(set_to_none=True)
        loss = network(views)
        (loss if isinstance(loss, torch.Tensor) else loss.total).backward()
        descent.step()

    return seconds_of(step, repeats, next(method.parameters()).device)


def saved_bytes(network: Callable[[], Any], besides: nn.Module) -> int:
    """Bytes that autograd keeps for the backward pass of what `network` returns; weights of `besides` do not count."""
    weights = {weight.untyped_storage().data_ptr() for weight in besides.parameters()}
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = network()  # the graph has to live while addresses are compared
    del kept
    return sum(saved.values())


class RankTiming(NamedTuple):
    """wall, processor: seconds of a training step. link: bytes a second that an all-reduce brings to a rank."""

    wall: float
    processor: float
    link: float


def ranks_seconds(ranks: int, build: Callable[[int], tuple[nn.Module, Any]], repeats: int = 5) -> RankTiming:
    """Time a step on `ranks` new CPU processes of one thread each, under gloo and DistributedDataParallel.

    build: function of the number of ranks that gives (method, this rank's views); it must live in an importable
    module. Takes some seconds to start the processes. Returns the slowest rank's numbers.
    """
    require(ranks >= 1, f"ranks: expected at least 1, got {ranks}")
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(_rank, (ranks, folder, build, repeats), nprocs=ranks)
        found = [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(ranks)]
    walls, processors, links = zip(*found, strict=True)
    return RankTiming(max(walls), max(processors), min(links))


def _rank(rank: int, ranks: int, folder: str, build: Callable, repeats: int) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # containers often have a host name that leads nowhere
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    method, views = build(ranks)
    place, cpu = Ranks(), torch.device("cpu")
    network, link = place.wrap(method, cpu), float("inf")
    with place.entered(method):
        step = step_seconds(method, views, repeats, network)
    if ranks > 1:
        gradient = torch.zeros(sum(weight.numel() for weight in method.parameters()))
        seconds = seconds_of(lambda: dist.all_reduce(gradient), repeats).wall
        link = 2 * (ranks - 1) / ranks * gradient.numel() * gradient.element_size() / seconds
    torch.save((*step, link), Path(folder) / f"{rank}.pt")
    del network, place
    leave_group()


def simclr_on_ranks(ranks: int, images: int = 64, img_size: int = 32, embed_dim: int = 192) -> tuple[nn.Module, Any]:
    """SimCLR on a ViT of depth 4, and one rank's share of a batch of noise: a `build` for ranks_seconds."""
    from sslcore.backbones import VisionTransformer
    from sslcore.methods import SimCLR

    net = VisionTransformer(img_size, 4, embed_dim=embed_dim, depth=4, num_heads=3)
    method = SimCLR(net, projector_dims=(256, 64))
    return method, tuple(torch.randn(images // ranks, 3, img_size, img_size) for _ in range(2))
