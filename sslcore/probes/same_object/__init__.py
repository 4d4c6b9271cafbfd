"""Same-object probes: can one read from two tokens whether they lie on one object?"""

from sslcore.probes.same_object.agreement import (
    attention_agreement,
    attention_logits,
    head_aurocs,
    head_scores,
    partial_correlation,
)
from sslcore.probes.same_object.baselines import baselines
from sslcore.probes.same_object.capacity import permuted_ids, place_r2
from sslcore.probes.same_object.curves import (
    LayerCurve,
    alignment_r2,
    all_layers,
    first_blocks,
    layer_curves,
    masked_layers,
)
from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.intervention import EDITS, Edit, intervened, run_from
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.metrics import auroc, image_auroc, pair_accuracy, unlikeness_auroc
from sslcore.probes.same_object.outcomes import (
    SceneReadout,
    grouping_ari,
    mean_interval,
    mean_iou,
    reconstruction_errors,
    reconstruction_rise,
    segmentation_head,
)
from sslcore.probes.same_object.paired import auroc_difference
from sslcore.probes.same_object.pairs import MATCHES, STRATA, Pairs, sample_pairs
from sslcore.probes.same_object.pointwise import PointwiseProbe, pointwise_probe
from sslcore.probes.same_object.probe import KINDS, SameObjectProbe
from sslcore.probes.same_object.report import BindingReport, Score, binding_auroc, binding_report, scene_pairs
from sslcore.probes.same_object.shortcut import other_part_pairs, part_steps, shortcut_aurocs
from sslcore.probes.same_object.strata import pair_strata, strata_auroc
from sslcore.probes.same_object.study import Study, use_study
from sslcore.probes.same_object.subspace import (
    Subspace,
    pca_subspace,
    probe_subspace,
    random_subspace,
    regression_subspace,
    sign_aurocs,
    spectrum,
    subspace_curves,
)
from sslcore.probes.same_object.tasks import (
    blind_features,
    control_subspaces,
    permuted_pairs,
    token_targets,
    visible_pairs,
)

__all__ = [
    "EDITS",
    "KINDS",
    "MATCHES",
    "STRATA",
    "BindingReport",
    "Edit",
    "FittedProbe",
    "LayerCurve",
    "Pairs",
    "PointwiseProbe",
    "SameObjectProbe",
    "SceneReadout",
    "Score",
    "Study",
    "Subspace",
    "alignment_r2",
    "all_layers",
    "attention_agreement",
    "attention_logits",
    "auroc",
    "auroc_difference",
    "baselines",
    "binding_auroc",
    "binding_report",
    "blind_features",
    "control_subspaces",
    "first_blocks",
    "grouping_ari",
    "head_aurocs",
    "head_scores",
    "image_auroc",
    "intervened",
    "layer_curves",
    "masked_layers",
    "mean_interval",
    "mean_iou",
    "other_part_pairs",
    "pair_accuracy",
    "pair_strata",
    "part_steps",
    "partial_correlation",
    "pca_subspace",
    "permuted_ids",
    "permuted_pairs",
    "place_r2",
    "pointwise_probe",
    "probe_subspace",
    "random_subspace",
    "reconstruction_errors",
    "reconstruction_rise",
    "regression_subspace",
    "run_from",
    "same_object_probe",
    "sample_pairs",
    "scene_pairs",
    "segmentation_head",
    "shortcut_aurocs",
    "sign_aurocs",
    "spectrum",
    "strata_auroc",
    "subspace_curves",
    "token_grid",
    "token_labels",
    "token_targets",
    "unlikeness_auroc",
    "use_study",
    "visible_pairs",
]
