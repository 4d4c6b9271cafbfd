"""The published view recipes, as policies. Sizes below 40 px use no blur in SimCLR, as its CIFAR recipe does."""

from __future__ import annotations

from sslcore.views.policy import ViewPolicy


def simclr_policy(size: int, strength: float = 1.0) -> ViewPolicy:
    s = strength
    return ViewPolicy(
        size, scale=(0.08, 1.0), jitter=(0.8 * s, 0.8 * s, 0.8 * s, 0.2 * s), blur=0.5 if size >= 40 else 0.0
    )


def byol_policies(size: int) -> tuple[ViewPolicy, ViewPolicy]:
    jitter = (0.4, 0.4, 0.2, 0.1)
    return (
        ViewPolicy(size, scale=(0.08, 1.0), jitter=jitter, blur=1.0),
        ViewPolicy(size, scale=(0.08, 1.0), jitter=jitter, blur=0.1, solarize=0.2),
    )


def dino_policies(size: int, local_size: int) -> tuple[ViewPolicy, ViewPolicy, ViewPolicy]:
    jitter = (0.4, 0.4, 0.2, 0.1)
    return (
        ViewPolicy(size, scale=(0.4, 1.0), jitter=jitter, blur=1.0),
        ViewPolicy(size, scale=(0.4, 1.0), jitter=jitter, blur=0.1, solarize=0.2),
        ViewPolicy(local_size, scale=(0.05, 0.4), jitter=jitter, blur=0.5),
    )


def mae_policy(size: int) -> ViewPolicy:
    return ViewPolicy(size, jitter=(0.0, 0.0, 0.0, 0.0), jitter_probability=0.0, grayscale=0.0)


def gentle_policy(size: int) -> ViewPolicy:
    return ViewPolicy(size, scale=(0.5, 1.0), jitter=(0.2, 0.2, 0.2, 0.05), grayscale=0.0)
