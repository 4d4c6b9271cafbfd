"""The whole card of one network: every probe of the course that fits it, beside its controls."""

from sslcore.probes.network_report.card import NetworkReport, report
from sslcore.probes.network_report.images import SIZES, ReportSets, Sizes, report_sets
from sslcore.probes.network_report.network import as_backbone, image_size, network_cost
from sslcore.probes.network_report.readings import Readings, read_network
from sslcore.probes.network_report.scores import pixel_scores, score_networks

__all__ = [
    "SIZES",
    "NetworkReport",
    "Readings",
    "ReportSets",
    "Sizes",
    "as_backbone",
    "image_size",
    "network_cost",
    "pixel_scores",
    "read_network",
    "report",
    "report_sets",
    "score_networks",
]
