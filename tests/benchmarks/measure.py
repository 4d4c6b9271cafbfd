"""How long a call takes, how much memory it has torch allocate, and what the machine could do at best."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Call, device: torch.device) -> float:
    """Wall time of one call, the device's work included."""
    _finish(device)
    start = time.perf_counter()
    call()
    _finish(device)
    return time.perf_counter() - start


def race(calls: dict[str, Call], device: torch.device, budget: float, rounds: int = 50) -> dict[str, list[float]]:
    """Times of each call, taken in turns so that a disturbance hits all of them alike; the caller has warmed them up.

    A contender drops out of further rounds once it has used `budget` seconds, after three rounds at the earliest.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            if len(times[name]) < 3 or sum(times[name]) < budget:
                times[name].append(seconds(call, device))
    return times


def median(times: list[float]) -> float:
    """The middle one of them."""
    return statistics.median(times)


def peak_bytes(call: Call, device: torch.device) -> int:
    """Most bytes that torch held at once during the call, beyond what it held before.

    On the CPU it is the running sum of the allocations and releases that torch's profiler reports: tensors only, not
    Python objects or images of other libraries.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def machine_rates(device: torch.device, quick: bool = False) -> dict[str, float]:
    """Bytes a second of the fastest of a few copies, and float32 operations a second of the faster of a large matrix
    product and a large convolution, which may come from different libraries."""
    cuda = device.type == "cuda"
    best = {"bytes": 0.0, "flops": 0.0}
    for size in [2**16] if quick else [2**26] if cuda else [2**16, 2**18, 2**24]:
        source = torch.ones(size, device=device)
        target = torch.empty_like(source)
        took = min(seconds(lambda: target.copy_(source), device) for _ in range(20))  # noqa: B023
        best["bytes"] = max(best["bytes"], 2 * source.nbytes / took)
    side = 64 if quick else 8192 if cuda else 1024
    square = torch.ones(side, side, device=device)
    took = min(seconds(lambda: square @ square, device) for _ in range(6))
    best["flops"] = 2 * side**3 / took
    batch, width = (1, 8) if quick else (256, 256) if cuda else (16, 128)
    images, kernel = torch.ones(batch, width, 32, 32, device=device), torch.ones(width, width, 3, 3, device=device)
    took = min(seconds(lambda: F.conv2d(images, kernel, padding=1), device) for _ in range(6))
    best["flops"] = max(best["flops"], 2 * 9 * batch * (32 * width) ** 2 / took)
    return best
