"""The equations: pure functions of tensors, one file a family."""

from __future__ import annotations

from sslcore.objectives.collapse import effective_rank, embedding_std
from sslcore.objectives.contrastive import info_nce, nt_xent
from sslcore.objectives.energy import EnergyTerms, contrastive_divergence
from sslcore.objectives.masked import masked_pixel_loss, patchify, unpatchify
from sslcore.objectives.neighbours import leave_one_out_knn, leave_one_out_votes, supcon
from sslcore.objectives.redundancy import BarlowTerms, VICRegTerms, barlow_twins, vicreg
from sslcore.objectives.self_distillation import dino_loss, ibot_patch_loss, koleo, negative_cosine, update_center

__all__ = [
    "BarlowTerms",
    "EnergyTerms",
    "VICRegTerms",
    "barlow_twins",
    "contrastive_divergence",
    "dino_loss",
    "effective_rank",
    "embedding_std",
    "ibot_patch_loss",
    "info_nce",
    "koleo",
    "leave_one_out_knn",
    "leave_one_out_votes",
    "masked_pixel_loss",
    "negative_cosine",
    "nt_xent",
    "patchify",
    "supcon",
    "unpatchify",
    "update_center",
    "vicreg",
]
