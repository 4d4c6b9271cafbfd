"""Checks of the selective scan, of its parallel form, and of the mask that keeps the next cluster out of sight."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from sslcore.checks.report import CheckFailed, Report, draw, steady


def _shaped(name: str, got: object, shape: tuple[int, ...]) -> Tensor:
    if not isinstance(got, Tensor):
        raise CheckFailed(f"{name}: expected a tensor {shape}, got {type(got).__name__}; is a return missing?")
    if tuple(got.shape) != shape:
        raise CheckFailed(f"{name}: expected shape {shape}, got {tuple(got.shape)}")
    return got


@steady
def check_selective_scan(fn: Callable | None = None) -> None:
    """fn(x, delta (B, L, D), A (D, N), B, C (B, L, N)) -> y (B, L, D); see sslcore.backbones.selective_scan."""
    if fn is None:
        from sslcore.backbones import selective_scan as fn
    report = Report("selective_scan")
    x, delta, A = draw(2, 6, 3, seed=1), draw(2, 6, 3, seed=2).abs() + 0.1, -draw(3, 4, seed=3).abs() - 0.1
    B, C = draw(2, 6, 4, seed=4), draw(2, 6, 4, seed=5)

    def scan(x, delta, A, B, C):
        return _shaped("selective_scan", fn(x, delta, A, B, C), (2, 6, 3))

    gain = torch.einsum("bln,bln->bl", B, C)[..., None]
    report.close(scan(x, delta, A - 1e6, B, C), gain * delta * x,
                 "a state that fades at once leaves only the present token",
                 "add delta * B * x to the state first, then read it with C")
    written = torch.einsum("bld,bln->bldn", delta * x, B).cumsum(1)
    report.close(scan(x, delta, 0 * A, B, C), torch.einsum("bldn,bln->bld", written, C),
                 "with A = 0 nothing fades: the state is a running sum", "decay is exp(delta * A), which is 1 here")
    pulse = torch.zeros_like(x)
    pulse[:, 1] = 1
    ones = torch.ones_like(B)
    passed = torch.cat([torch.zeros(2, 2, 3), delta[:, 2:].cumsum(1)], 1)  # steps since the pulse
    faded = (passed[..., None] * A).exp().sum(-1) * delta[:, 1:2]
    report.close(scan(pulse, delta, A, ones, ones)[:, 1:], faded[:, 1:],
                 "a pulse fades by exp(A * the steps taken since)", "token t fades the state by its own delta")
    expected = torch.zeros(2, 6, 3)
    for t in range(6):
        for s in range(t + 1):
            fade = (delta[:, s + 1 : t + 1].sum(1)[..., None] * A).exp()  # (B, D, N)
            expected[:, t] += (C[:, t, None] * fade * B[:, s, None]).sum(-1) * (delta * x)[:, s]
    report.close(scan(x, delta, A, B, C), expected, "every token's share, faded and added up, by hand",
                 "B writes at s, C reads at t; each channel has its own decays")
    later = x.clone()
    later[:, 3:] += 5
    report.close(scan(later, delta, A, B, C)[:, :3], scan(x, delta, A, B, C)[:, :3],
                 "later tokens change nothing before")


class _Count(TorchDispatchMode):
    """Counts the tensor operations inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


@steady
def check_linear_scan(fn: Callable | None = None) -> None:
    """fn(a, b (B, L, D)) -> h (B, L, D) with h_t = a_t h_(t-1) + b_t, in log2 L sweeps; see backbones.linear_scan."""
    if fn is None:
        from sslcore.backbones import linear_scan as fn
    report = Report("linear_scan")
    a, b = draw(2, 7, 3, seed=1), draw(2, 7, 3, seed=2)

    def scan(a, b):
        return _shaped("linear_scan", fn(a, b), tuple(a.shape))

    report.close(scan(torch.ones_like(a), b), b.cumsum(1), "a = 1: a running sum")
    report.close(scan(torch.zeros_like(a), b), b, "a = 0: every token alone")
    pulse = torch.zeros(1, 9, 1)
    pulse[:, 0] = 1
    report.close(scan(torch.full((1, 9, 1), 0.5), pulse).flatten(), 0.5 ** torch.arange(9.0),
                 "a pulse halved again and again", "a has to grow with b: its sweep is a[t] * a[t - span]")
    kept = a.clone(), b.clone()
    h = scan(a, b)
    report.expect(torch.equal(kept[0], a) and torch.equal(kept[1], b), "a and b come back as they were",
                  "they have been written to", "build new tensors with torch.cat")
    before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
    report.close(h - a * before, b, "h_t - a_t h_(t-1) is b_t, also where L is no power of two",
                 "sweep while span < L; use the old a for the new b")
    for length in (1, 2, 8):
        long_a, long_b = (each.repeat(1, 2, 1)[:, :length] for each in (a, b))
        h = scan(long_a, long_b)
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        report.close(h - long_a * before, long_b, f"the same for L = {length}")
    with _Count() as count:
        fn(torch.full((1, 1024, 1), 0.9), torch.ones(1, 1024, 1))
    report.expect(count.calls < 700, "1024 tokens take ten sweeps, not a thousand steps", f"{count.calls} operations",
                  "double the span after each sweep")


@steady
def check_cluster_mask(fn: Callable | None = None) -> None:
    """fn(num_clusters, size) -> bool (num_clusters * size)^2, True = may look; see sslcore.backbones.cluster_mask."""
    if fn is None:
        from sslcore.backbones import cluster_mask as fn
    report = Report("cluster_mask")

    def mask(clusters, size):
        got = _shaped("cluster_mask", fn(clusters, size), (clusters * size,) * 2)
        if got.dtype != torch.bool:
            raise CheckFailed(f"cluster_mask: expected a bool mask, True = may look, got {got.dtype}")
        return got

    report.close(mask(5, 1), torch.ones(5, 5).tril(), "clusters of one patch: the ordinary causal mask",
                 "rows are questions, columns what was read")
    blocks = mask(3, 4).unflatten(0, (3, 4)).unflatten(2, (3, 4)).transpose(1, 2)
    report.expect(bool((blocks == blocks[..., :1, :1]).all()), "a question sees all of a cluster or nothing of it",
                  "clusters cut in pieces", "compare cluster numbers, place // size")
    report.close(blocks[..., 0, 0], torch.ones(3, 3).tril(), "row i asks about cluster i + 1 and sees clusters 0 to i",
                 "the diagonal belongs to what may be seen: it is the cluster before the one asked for")
    report.expect(bool(mask(2, 3)[0].any()) and not bool(mask(2, 3)[:3, 3:].any()),
                  "the first question sees the first cluster and not the second", "it does not")
