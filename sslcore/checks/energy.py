"""Checks of energy-based learning."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sslcore.checks.report import CheckFailed, Report, draw, steady


@steady
def check_contrastive_divergence(fn: Callable | None = None) -> None:
    """fn(real (N,), fake (M,), l2) -> scalar; see sslcore.objectives.contrastive_divergence."""
    if fn is None:
        from sslcore.objectives import contrastive_divergence as fn
    report = Report("contrastive_divergence")
    real, fake = draw(6, seed=1), draw(4, seed=2)

    def loss(real, fake, l2=0.0):
        return report.scalar(fn(real, fake, l2))

    two, one = torch.tensor([1.0, 3.0]), torch.tensor([5.0])
    report.close(loss(two, one), 3.0, "mean score of samples minus mean score of data",
                 "training must raise the score of data: mind the sign, and average each set by itself")
    report.close(loss(one, two), -3.0, "it is negative where data score higher", "a difference, not a distance")
    report.close(loss(real, real), 0.0, "scores that agree cost nothing")
    report.close(loss(real + 7, fake + 7), loss(real, fake), "a constant added to every score changes nothing")
    report.close(loss(two, one, 0.1), 3.0 + 0.1 * (5 + 25),
                 "the penalty is l2 times the mean squares of both sets", "mean of real ** 2 plus mean of fake ** 2")
    a, b = real.clone().requires_grad_(), fake.clone().requires_grad_()
    value = loss(a, b)
    report.expect(value.requires_grad, "the loss has a gradient", "none", "do not detach the scores")
    grads = torch.autograd.grad(value, (a, b), allow_unused=True)
    pushes = all(g is not None for g in grads) and bool((grads[0] < 0).all()) and bool((grads[1] > 0).all())
    report.expect(pushes, "descent raises every score of data and lowers every score of samples", "another sign",
                  "both sets carry a gradient; only the way the samples were found does not")


@steady
def check_langevin(fn: Callable | None = None) -> None:
    """fn(score, images (B, C, H, W), noise (B, T, C, H, W), step_size, sigma) -> images, as in methods.sampling."""
    if fn is None:
        from sslcore.methods.sampling import langevin as fn
    report = Report("langevin")
    weight = torch.ones((), requires_grad=True)

    def score(images):
        return -weight * (images - 1).square().flatten(1).sum(1) / 2

    images, noise = draw(3, 1, 2, 2, seed=1), draw(3, 4, 1, 2, 2, seed=2)

    def sample(images, noise, step_size, sigma):
        out = fn(score, images.clone(), noise, step_size, sigma)
        if not isinstance(out, torch.Tensor) or out.shape != images.shape:
            raise CheckFailed(f"langevin: expected images {tuple(images.shape)}, got {getattr(out, 'shape', out)}")
        return out

    report.close(sample(images, noise, 0.0, 0.0), images, "steps of size 0 without noise leave images alone")
    report.close(sample(images, noise[:, :1], 0.1, 0.0), images + 0.1 * (1 - images), "one step goes uphill",
                 "add step_size times the gradient of the score; the score is minus the energy")
    expected = images
    for step in range(4):
        expected = expected + 0.1 * (1 - expected) + 0.3 * noise[:, step]
    report.close(sample(images, noise, 0.1, 0.3), expected, "one step for each entry of noise, each with its own",
                 "sigma is not scaled by the step size here")
    alone = torch.cat([sample(images[i : i + 1], noise[i : i + 1], 0.1, 0.3) for i in range(3)])
    report.close(sample(images, noise, 0.1, 0.3), alone, "chains do not see each other",
                 "take the gradient of the sum of the scores, not of their mean")
    report.expect(not sample(images, noise, 0.1, 0.3).requires_grad, "the samples carry no graph", "one is attached",
                  "detach: the loss must not differentiate through the sampler")
    report.expect(weight.grad is None, "parameters collect no gradient", "a gradient on the score's weight",
                  "torch.autograd.grad on the images, not backward()")
