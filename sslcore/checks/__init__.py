"""Property checks for the exercises: `check_nt_xent(my_nt_xent)`.

Each takes your function, or none to check the library's own; prints one "ok:" line a property; and stops at the first
property that does not hold with a CheckFailed that says which one, and what your function gave.
"""

from sslcore.checks.auditing import check_residual_share, check_sieve
from sslcore.checks.binding import check_auroc, check_quadratic_probe, check_same_object_pairs, check_token_labels
from sslcore.checks.clustering import (
    check_balanced_prior,
    check_prototype_usage,
    check_regnet_widths,
    check_sinkhorn_knopp,
    check_swapped_prediction,
)
from sslcore.checks.codes import check_gumbel_softmax, check_masked_code_loss
from sslcore.checks.contextual import check_contextual_targets, check_data2vec_loss, check_inverse_block_mask
from sslcore.checks.contrastive import check_info_nce, check_nt_xent
from sslcore.checks.dependency import check_attachment, check_keep_tokens, check_reversed_weights
from sslcore.checks.energy import check_contrastive_divergence, check_langevin
from sslcore.checks.features import check_hog, check_masked_feature_loss
from sslcore.checks.gaussian import check_epps_pulley, check_sigreg
from sslcore.checks.granular import check_granular_nce, check_push
from sslcore.checks.hierarchical import check_hierarchical_cross_entropy, check_kmeans
from sslcore.checks.interventions import check_partial_correlation, check_subspace_shuffle
from sslcore.checks.masked import check_masked_pixel_loss, check_patchify, check_random_mask
from sslcore.checks.neighbours import check_leave_one_out, check_supcon
from sslcore.checks.pairs import check_close_pairs, check_mined_triplet_loss
from sslcore.checks.predictive import check_next_embedding_loss, check_token_influence
from sslcore.checks.probes import (
    check_alignment,
    check_attention_rollout,
    check_knn,
    check_mass_threshold,
    check_rankme,
    check_uniformity,
)
from sslcore.checks.ranking import check_permutation_p, check_spearman
from sslcore.checks.redundancy import check_barlow_twins, check_vicreg
from sslcore.checks.report import CheckFailed
from sslcore.checks.selection import check_ask_for, check_patch_selection_loss, check_spread_ratio
from sslcore.checks.self_distillation import (
    check_dino_loss,
    check_koleo,
    check_negative_cosine,
    check_update_center,
    check_update_ema,
)
from sslcore.checks.sequences import check_cluster_mask, check_linear_scan, check_selective_scan
from sslcore.checks.sparse import check_masked_latent_loss, check_norm_of_visible

__all__ = [
    "CheckFailed",
    "check_alignment",
    "check_ask_for",
    "check_attachment",
    "check_attention_rollout",
    "check_auroc",
    "check_balanced_prior",
    "check_barlow_twins",
    "check_close_pairs",
    "check_cluster_mask",
    "check_contextual_targets",
    "check_contrastive_divergence",
    "check_data2vec_loss",
    "check_dino_loss",
    "check_epps_pulley",
    "check_granular_nce",
    "check_gumbel_softmax",
    "check_hierarchical_cross_entropy",
    "check_hog",
    "check_info_nce",
    "check_inverse_block_mask",
    "check_keep_tokens",
    "check_kmeans",
    "check_knn",
    "check_koleo",
    "check_langevin",
    "check_leave_one_out",
    "check_linear_scan",
    "check_masked_code_loss",
    "check_masked_feature_loss",
    "check_masked_latent_loss",
    "check_masked_pixel_loss",
    "check_mass_threshold",
    "check_mined_triplet_loss",
    "check_negative_cosine",
    "check_next_embedding_loss",
    "check_norm_of_visible",
    "check_nt_xent",
    "check_partial_correlation",
    "check_patch_selection_loss",
    "check_patchify",
    "check_permutation_p",
    "check_prototype_usage",
    "check_push",
    "check_quadratic_probe",
    "check_random_mask",
    "check_rankme",
    "check_regnet_widths",
    "check_residual_share",
    "check_reversed_weights",
    "check_same_object_pairs",
    "check_selective_scan",
    "check_sieve",
    "check_sigreg",
    "check_sinkhorn_knopp",
    "check_spearman",
    "check_spread_ratio",
    "check_subspace_shuffle",
    "check_supcon",
    "check_swapped_prediction",
    "check_token_influence",
    "check_token_labels",
    "check_uniformity",
    "check_update_center",
    "check_update_ema",
    "check_vicreg",
]
