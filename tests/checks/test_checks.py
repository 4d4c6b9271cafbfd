"""The checks accept the library and refuse every planted mistake, in words."""

from __future__ import annotations

import pytest
import torch

from sslcore import checks
from sslcore.checks import CheckFailed
from tests.checks import (
    mutants,
    mutants_of_cells,
    mutants_of_codes,
    mutants_of_context,
    mutants_of_dependency,
    mutants_of_energy,
    mutants_of_features,
    mutants_of_gaussian,
    mutants_of_granular,
    mutants_of_interventions,
    mutants_of_neighbours,
    mutants_of_pairs,
    mutants_of_prediction,
    mutants_of_ranking,
    mutants_of_scans,
    mutants_of_selection,
    mutants_of_sets,
)

MUTANTS = {
    "check_alignment": mutants.ALIGNMENT,
    "check_ask_for": mutants_of_selection.ASK,
    "check_attachment": mutants_of_dependency.ATTACH,
    "check_attention_rollout": mutants.ROLLOUT,
    "check_auroc": mutants.AUROC,
    "check_balanced_prior": mutants.PRIOR,
    "check_barlow_twins": mutants.BARLOW,
    "check_close_pairs": mutants_of_pairs.CLOSURE,
    "check_contextual_targets": mutants_of_context.TARGETS,
    "check_cluster_mask": mutants_of_scans.MASK,
    "check_contrastive_divergence": mutants_of_energy.DIVERGENCE,
    "check_data2vec_loss": mutants_of_context.LOSS,
    "check_inverse_block_mask": mutants_of_context.INVERSE,
    "check_dino_loss": mutants.DINO,
    "check_hierarchical_cross_entropy": mutants_of_sets.HIERARCHICAL,
    "check_granular_nce": mutants_of_granular.GRANULAR,
    "check_epps_pulley": mutants_of_gaussian.EPPS_PULLEY,
    "check_gumbel_softmax": mutants_of_codes.GUMBEL,
    "check_hog": mutants_of_features.HOG,
    "check_info_nce": mutants.INFO_NCE,
    "check_partial_correlation": mutants_of_interventions.CORRELATION,
    "check_subspace_shuffle": mutants_of_interventions.EDIT,
    "check_keep_tokens": mutants_of_dependency.KEEP,
    "check_kmeans": mutants_of_sets.KMEANS,
    "check_knn": mutants.KNN,
    "check_koleo": mutants.KOLEO,
    "check_leave_one_out": mutants_of_neighbours.LEAVE_ONE_OUT,
    "check_langevin": mutants_of_energy.LANGEVIN,
    "check_masked_code_loss": mutants_of_codes.CODES,
    "check_linear_scan": mutants_of_scans.LINEAR,
    "check_masked_feature_loss": mutants_of_features.FEATURES,
    "check_masked_latent_loss": mutants_of_cells.LATENT,
    "check_norm_of_visible": mutants_of_cells.NORM,
    "check_masked_pixel_loss": mutants.PIXELS,
    "check_mass_threshold": mutants.MASS,
    "check_mined_triplet_loss": mutants_of_pairs.TRIPLET,
    "check_negative_cosine": mutants.COSINE,
    "check_next_embedding_loss": mutants_of_prediction.NEXT,
    "check_nt_xent": mutants.NT_XENT,
    "check_patch_selection_loss": mutants_of_selection.SELECT,
    "check_patchify": mutants.PATCHIFY,
    "check_permutation_p": mutants_of_ranking.PERMUTATION,
    "check_prototype_usage": mutants.USAGE,
    "check_push": mutants_of_granular.PUSH,
    "check_quadratic_probe": mutants.QUADRATIC,
    "check_random_mask": mutants.RANDOM_MASK,
    "check_rankme": mutants.RANKME,
    "check_residual_share": mutants_of_sets.RESIDUAL,
    "check_reversed_weights": mutants_of_dependency.REVERSED,
    "check_regnet_widths": mutants.WIDTHS,
    "check_same_object_pairs": mutants.PAIRS,
    "check_spearman": mutants_of_ranking.SPEARMAN,
    "check_sinkhorn_knopp": mutants.SINKHORN,
    "check_selective_scan": mutants_of_scans.SELECTIVE,
    "check_swapped_prediction": mutants.SWAPPED,
    "check_sigreg": mutants_of_gaussian.SIGREG,
    "check_sieve": mutants_of_sets.SIEVE,
    "check_spread_ratio": mutants_of_selection.SPREAD,
    "check_supcon": mutants_of_neighbours.SUPCON,
    "check_token_influence": mutants_of_prediction.INFLUENCE,
    "check_token_labels": mutants.LABELS,
    "check_uniformity": mutants.UNIFORMITY,
    "check_update_center": mutants.CENTER,
    "check_update_ema": mutants.EMA,
    "check_vicreg": mutants.VICREG,
}
NAMES = [name for name in checks.__all__ if name.startswith("check_")]
PLANTED = [(name, mistake) for name, mistakes in MUTANTS.items() for mistake in mistakes]
# The unbroken form of the mutants: it must pass, or a mutant might fail for another reason than its mistake.
CORRECT = {
    "check_gumbel_softmax": mutants_of_codes._gumbel,
    "check_masked_code_loss": mutants_of_codes._codes,
    "check_contextual_targets": mutants_of_context._targets,
    "check_data2vec_loss": mutants_of_context._loss,
    "check_inverse_block_mask": mutants_of_context._inverse,
    "check_ask_for": mutants_of_selection._ask,
    "check_patch_selection_loss": mutants_of_selection._select,
    "check_spread_ratio": mutants_of_selection._spread,
    "check_partial_correlation": mutants_of_interventions._correlation,
    "check_subspace_shuffle": mutants_of_interventions._shuffle,
    "check_attachment": mutants_of_dependency._attach,
    "check_keep_tokens": mutants_of_dependency._keep,
    "check_reversed_weights": mutants_of_dependency._sent,
    "check_next_embedding_loss": mutants_of_prediction._next,
    "check_token_influence": mutants_of_prediction._influence,
    "check_cluster_mask": mutants_of_scans._mask,
    "check_linear_scan": mutants_of_scans._sweep,
    "check_selective_scan": mutants_of_scans._scan,
    "check_nt_xent": mutants._simclr,
    "check_hierarchical_cross_entropy": mutants_of_sets._hierarchical,
    "check_info_nce": mutants._info_nce,
    "check_epps_pulley": mutants_of_gaussian._statistic,
    "check_sigreg": mutants_of_gaussian._sliced,
    "check_kmeans": mutants_of_sets._kmeans,
    "check_residual_share": mutants_of_sets._share,
    "check_sieve": mutants_of_sets._sieve,
    "check_barlow_twins": mutants._barlow,
    "check_leave_one_out": mutants_of_neighbours._leave_one_out,
    "check_supcon": mutants_of_neighbours._supcon,
    "check_contrastive_divergence": mutants_of_energy._divergence,
    "check_langevin": mutants_of_energy._langevin,
    "check_vicreg": mutants._vicreg,
    "check_dino_loss": mutants._dino,
    "check_koleo": mutants._koleo,
    "check_sinkhorn_knopp": mutants._sinkhorn,
    "check_swapped_prediction": mutants._swapped,
    "check_balanced_prior": mutants._prior,
    "check_regnet_widths": mutants._widths,
    "check_prototype_usage": lambda q: mutants._entropy(q.mean(0)).exp(),
    "check_mined_triplet_loss": mutants_of_pairs._triplet,
    "check_close_pairs": mutants_of_pairs._closure,
    "check_push": mutants_of_granular._push,
    "check_granular_nce": mutants_of_granular._granular,
    "check_update_ema": mutants._ema,
    "check_hog": mutants_of_features._hog,
    "check_masked_feature_loss": mutants_of_features._features,
    "check_masked_latent_loss": mutants_of_cells._latent,
    "check_norm_of_visible": mutants_of_cells._norm,
    "check_patchify": lambda x, p: mutants._patchify(x, p, (0, 2, 4, 3, 5, 1)),
    "check_masked_pixel_loss": mutants._pixels,
    "check_knn": mutants._knn,
    "check_rankme": lambda x: mutants._rank(torch.linalg.svdvals(x)),
    "check_attention_rollout": mutants._product,
    "check_mass_threshold": mutants._mass,
    "check_quadratic_probe": mutants._quadratic,
}


def test_every_check_has_mutants():
    assert sorted(MUTANTS) == sorted(NAMES)
    assert all(len(mistakes) >= 3 for mistakes in MUTANTS.values())


@pytest.mark.parametrize("name", NAMES)
def test_the_library_passes_and_says_so(name, capsys):
    assert getattr(checks, name)() is None
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= 3 and all(line.startswith("ok: ") for line in lines)
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("name", CORRECT)
def test_another_right_implementation_passes(name):
    getattr(checks, name)(CORRECT[name])


@pytest.mark.parametrize(("name", "mistake"), PLANTED)
def test_each_mistake_is_found_and_explained(name, mistake):
    with pytest.raises(CheckFailed) as caught:
        getattr(checks, name)(MUTANTS[name][mistake])
    said = str(caught.value)
    assert said.startswith(name.removeprefix("check_")) and len(said) > 40


NAMED = [
    ("check_update_ema", "memory shared", "share no memory"),
    ("check_vicreg", "no relu", "no reward"),
    ("check_masked_pixel_loss", "biased variance", "(P - 1) / P"),
    ("check_dino_loss", "same crop compared", "different crops"),
    ("check_same_object_pairs", "balanced by distance", "every displacement"),
    ("check_patch_selection_loss", "softmax twice", "sure and right choice"),
    ("check_nt_xent", "itself among the candidates", "2N - 1"),
]


@pytest.mark.parametrize(("name", "mistake", "property_named"), NAMED)
def test_the_message_names_the_broken_property(name, mistake, property_named):
    with pytest.raises(CheckFailed) as caught:
        getattr(checks, name)(MUTANTS[name][mistake])
    assert property_named in str(caught.value) and "seen:" in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_gap_comes_through_as_not_implemented(name):
    def gap(*args, **kwargs):
        raise NotImplementedError("to do")

    with pytest.raises(NotImplementedError, match="to do"):
        getattr(checks, name)(gap)


@pytest.mark.parametrize("name", NAMES)
def test_checks_leave_the_random_numbers_alone(name):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    getattr(checks, name)()
    assert torch.equal(torch.rand(3), expected)
