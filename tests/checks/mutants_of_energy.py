"""Wrong contrastive divergences and Langevin samplers."""

from __future__ import annotations

import torch


def _divergence(real, fake, l2=0.0, sign=1.0, pooled=False, one_sided=False, root=False):
    gap = sign * (fake.mean() - real.mean())
    if pooled:
        gap = (fake.sum() - real.sum()) / (len(real) + len(fake))
    squares = real.square().mean() + (0 if one_sided else fake.square().mean())
    return gap + l2 * (squares.sqrt() if root else squares)


DIVERGENCE = {
    "sign": lambda r, f, l2: _divergence(r, f, l2, sign=-1.0),
    "one mean for both sets": lambda r, f, l2: _divergence(r, f, l2, pooled=True),
    "penalty on data only": lambda r, f, l2: _divergence(r, f, l2, one_sided=True),
    "penalty not squared": lambda r, f, l2: _divergence(r, f, l2, root=True),
    "penalty ignored": lambda r, f, l2: _divergence(r, f),
    "samples' scores detached": lambda r, f, l2: _divergence(r, f.detach(), l2),
    "distance of the means": lambda r, f, l2: _divergence(r, f, l2).abs(),
}


def _langevin(score, images, noise, step_size, sigma, sign=1.0, mean=False, first=False, kept=False, euler=False):
    images = images.requires_grad_()
    for step in range(noise.shape[1]):
        total = score(images)
        (grad,) = torch.autograd.grad(total.mean() if mean else total.sum(), images, create_graph=kept)
        kick = noise[:, 0 if first else step] * ((2 * step_size) ** 0.5 if euler else sigma)
        images = images + sign * step_size * grad + kick
        images = images if kept else images.detach().requires_grad_()
    return images if kept else images.detach()


def _backward(score, images, noise, step_size, sigma):
    for step in range(noise.shape[1]):
        images = images.detach().requires_grad_()
        score(images).sum().backward()
        images = (images + step_size * images.grad + sigma * noise[:, step]).detach()
    return images


LANGEVIN = {
    "downhill": lambda *a: _langevin(*a, sign=-1.0),
    "gradient of the mean": lambda *a: _langevin(*a, mean=True),
    "one noise for all steps": lambda *a: _langevin(*a, first=True),
    "graph kept": lambda *a: _langevin(*a, kept=True),
    "noise of exact sampling": lambda *a: _langevin(*a, euler=True),
    "backward through the parameters": _backward,
    "no return": lambda *a: None,
}
