"""Same-object probes: can one read from two tokens whether they lie on one object?"""

from sslcore.probes.same_object.fit import FittedProbe, same_object_probe
from sslcore.probes.same_object.labels import token_grid, token_labels
from sslcore.probes.same_object.metrics import auroc, image_auroc, pair_accuracy
from sslcore.probes.same_object.pairs import MATCHES, STRATA, Pairs, sample_pairs
from sslcore.probes.same_object.probe import KINDS, SameObjectProbe
from sslcore.probes.same_object.report import BindingReport, Score, binding_auroc, binding_report

__all__ = [
    "KINDS",
    "MATCHES",
    "STRATA",
    "BindingReport",
    "FittedProbe",
    "Pairs",
    "SameObjectProbe",
    "Score",
    "auroc",
    "binding_auroc",
    "binding_report",
    "image_auroc",
    "pair_accuracy",
    "same_object_probe",
    "sample_pairs",
    "token_grid",
    "token_labels",
]
