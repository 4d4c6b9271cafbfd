"""Wrong versions of the exercises on SIGReg; every one must fail its check."""

from __future__ import annotations

import torch

from sslcore.objectives import epps_pulley


def _statistic(u, t_max=3.0, knots=17, scale=True, sine=True, weighted=True, mirrored=True, ends=True, twice=False,
               center=False, squared=True):
    u = u - u.mean() if center else u
    t = torch.linspace(0, t_max, knots)
    phi = torch.exp(-t.square() / 2)
    angles = u[:, None] * t
    cos, sin = angles.cos().mean(0), angles.sin().mean(0)
    gap = (cos - phi).square() + (sin.square() if sine else 0)
    gap = gap if squared else gap.sqrt()
    gap = gap * (phi if weighted else 1) * (phi if twice else 1)
    integral = torch.trapezoid(gap, t) if ends else gap.sum() * (t[1] - t[0])
    return (2 if mirrored else 1) * (len(u) if scale else 1) * integral


EPPS_PULLEY = {
    "not times N": lambda u: _statistic(u, scale=False),
    "half line not doubled": lambda u: _statistic(u, mirrored=False),
    "weight forgotten": lambda u: _statistic(u, weighted=False),
    "weight twice": lambda u: _statistic(u, twice=True),
    "sine forgotten": lambda u: _statistic(u, sine=False),
    "range to five": lambda u: _statistic(u, t_max=5.0),
    "sixteen knots": lambda u: _statistic(u, knots=16),
    "mean removed": lambda u: _statistic(u, center=True),
    "not squared": lambda u: _statistic(u, squared=False),
}


def _sliced(z, slices, unit=True, total=False, detach=True, normalise=False, dim=0):
    slices = slices.detach() if detach else slices
    slices = slices / slices.norm(dim=dim, keepdim=True) if unit else slices
    z = torch.nn.functional.normalize(z, dim=1) if normalise else z
    values = torch.stack([_statistic(z @ column) for column in slices.T])
    return values.sum() if total else values.mean()


SIGREG = {
    "directions not of length one": lambda z, a: _sliced(z, a, unit=False),
    "rows of length one": lambda z, a: _sliced(z, a, dim=1),
    "summed": lambda z, a: _sliced(z, a, total=True),
    "directions learnt": lambda z, a: _sliced(z, a, detach=False),
    "embeddings of length one": lambda z, a: _sliced(z, a, normalise=True),
    "embeddings detached": lambda z, a: _sliced(z.detach(), a) + 0 * z.sum(),
    "axes only": lambda z, a: epps_pulley(z).mean(),
}
