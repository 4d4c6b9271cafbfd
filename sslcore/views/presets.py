"""The published view recipes as policies, each with its source and where the course departs from it.

All resize bilinearly (MAE and DINO publish bicubic) and draw one blur width in pixels whatever the size.
"""

from __future__ import annotations

from sslcore.validate import check_positive
from sslcore.views.policy import ViewPolicy

SMALLEST_BLURRED = 40  # below this side SimCLR's CIFAR recipe, no blur, applies
BYOL_JITTER = (0.4, 0.4, 0.2, 0.1)


def simclr_policy(size: int, strength: float = 1.0) -> ViewPolicy:
    """SimCLR's views: crops of 8-100 %, strong jitter, blur in half of them (none below 40 px).

    strength scales the jitter: 1.0 for ImageNet, 0.5 for CIFAR. Raises ValueError unless 0 < strength <= 2.5 (hue is
    strength / 5 and ends at 0.5). Source: arXiv 2002.05709, appendix A.
    """
    check_positive("strength", strength)
    jitter = (0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength)
    return ViewPolicy(size, scale=(0.08, 1.0), jitter=jitter, blur=0.5 if size >= SMALLEST_BLURRED else 0.0)


def byol_policies(size: int) -> tuple[ViewPolicy, ViewPolicy]:
    """BYOL's two unequal views, which Barlow Twins, VICReg and MoCo v3 share: view 0 is always blurred, view 1 rarely
    blurred and sometimes solarized. Source: arXiv 2006.07733, appendix B.
    """
    return (
        ViewPolicy(size, scale=(0.08, 1.0), jitter=BYOL_JITTER, blur=1.0),
        ViewPolicy(size, scale=(0.08, 1.0), jitter=BYOL_JITTER, blur=0.1, solarize=0.2),
    )


def dino_policies(size: int, local_size: int) -> tuple[ViewPolicy, ViewPolicy, ViewPolicy]:
    """DINO's (global 0, global 1, local): globals cover 40-100 % of the image, locals 5-40 % at a smaller size.

    Give multicrop the local policy once for each local crop. Source: arXiv 2104.14294, section 3 and its code.
    """
    return (
        ViewPolicy(size, scale=(0.4, 1.0), jitter=BYOL_JITTER, blur=1.0),
        ViewPolicy(size, scale=(0.4, 1.0), jitter=BYOL_JITTER, blur=0.1, solarize=0.2),
        ViewPolicy(local_size, scale=(0.05, 0.4), jitter=BYOL_JITTER, blur=0.5),
    )


def swav_policies(size: int, local_size: int) -> tuple[ViewPolicy, ViewPolicy]:
    """SwAV's (large crop, small crop): 14-100 % of the image, and 5-14 % at a smaller size; SimCLR's colours on both.

    Give multicrop the large policy twice and the small one once for each small crop. Blur as in simclr_policy.
    Source: arXiv 2006.09882, appendix A, and its training scripts.
    """
    jitter, blur = (0.8, 0.8, 0.8, 0.2), 0.5 if size >= SMALLEST_BLURRED else 0.0
    return (
        ViewPolicy(size, scale=(0.14, 1.0), jitter=jitter, blur=blur),
        ViewPolicy(local_size, scale=(0.05, 0.14), jitter=jitter, blur=blur),
    )


def mae_policy(size: int) -> ViewPolicy:
    """MAE's views: crops of 20-100 % and flips, no colour. Source: arXiv 2111.06377, appendix A."""
    return ViewPolicy(size, jitter=(0.0, 0.0, 0.0, 0.0), jitter_probability=0.0, grayscale=0.0)


def gentle_policy(size: int) -> ViewPolicy:
    """The course's mild views for supervised arms and small images: crops of 50-100 %, flips, a quarter of SimCLR's
    jitter, no grayscale.
    """
    return ViewPolicy(size, scale=(0.5, 1.0), jitter=(0.2, 0.2, 0.2, 0.05), grayscale=0.0)
