"""Wrong implementations of the objectives that read labels off neighbours."""

from __future__ import annotations

import torch

from tests.checks.mutants import unit


def _supcon(z, labels, temperature=0.1, normalise=True, own=False, inside=False, all_rows=False, summed=False):
    z = unit(z) if normalise else z
    self_pair = torch.eye(len(z), dtype=torch.bool)
    logits = z @ z.T / temperature
    log_p = logits - (logits if own else logits.masked_fill(self_pair, -torch.inf)).logsumexp(1, keepdim=True)
    mates = (labels[:, None] == labels) & ~self_pair
    count = mates.sum(1)
    if inside:
        rows = -((log_p.exp() * mates).sum(1) / count.clamp_min(1)).clamp_min(1e-30).log()
    else:
        rows = -(log_p * mates).sum(1) / (1 if summed else count.clamp_min(1))
    return rows.mean() if all_rows else rows[count > 0].mean()


SUPCON = {
    "rows not normalised": lambda z, y, t: _supcon(z, y, t, normalise=False),
    "itself among the candidates": lambda z, y, t: _supcon(z, y, t, own=True),
    "mean inside the log": lambda z, y, t: _supcon(z, y, t, inside=True),
    "rows without mates counted": lambda z, y, t: _supcon(z, y, t, all_rows=True),
    "summed over mates": lambda z, y, t: _supcon(z, y, t, summed=True),
    "temperature ignored": lambda z, y, t: _supcon(z, y, 0.1),
    "detached": lambda z, y, t: _supcon(z.detach(), y, t),
}


def _leave_one_out(
    z, labels, k, temperature=0.1, normalise=True, own=False, outside=False, weighted=True, keep=False, floor=0
):
    z = unit(z) if normalise else z
    logits = z @ z.T / temperature
    if not own:
        logits = logits.masked_fill(torch.eye(len(z), dtype=torch.bool), -torch.inf)
    near, index = logits.topk(k, dim=1)
    right = labels[:, None] == labels[index]
    share = near.softmax(1) if weighted else torch.full_like(near, 1 / k) + 0 * near
    if outside:
        rows = -(share.clamp_min(1e-30).log() * right).sum(1) / right.sum(1).clamp_min(1)
    else:
        rows = -(share * right).sum(1).clamp_min(floor).log()
    return rows.mean() if keep else rows[right.any(1)].mean()


LEAVE_ONE_OUT = {
    "rows not normalised": lambda z, y, k, t: _leave_one_out(z, y, k, t, normalise=False),
    "itself among the neighbours": lambda z, y, k, t: _leave_one_out(z, y, k, t, own=True),
    "sum outside the log": lambda z, y, k, t: _leave_one_out(z, y, k, t, outside=True),
    "every neighbour weighs the same": lambda z, y, k, t: _leave_one_out(z, y, k, t, weighted=False),
    "all rows as neighbours": lambda z, y, k, t: _leave_one_out(z, y, len(z) - 1, t),
    "always three neighbours": lambda z, y, k, t: _leave_one_out(z, y, 3, t),
    "temperature ignored": lambda z, y, k, t: _leave_one_out(z, y, k, 0.1),
    "rows without mates kept": lambda z, y, k, t: _leave_one_out(z, y, k, t, keep=True),
    "rows without mates kept, with a floor": lambda z, y, k, t: _leave_one_out(z, y, k, t, keep=True, floor=1e-30),
    "detached": lambda z, y, k, t: _leave_one_out(z.detach(), y, k, t),
}
