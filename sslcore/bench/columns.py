"""The columns of the board: what a number is called, what it says, and which way is better."""

from __future__ import annotations

from typing import NamedTuple


class Column(NamedTuple):
    """title: short, for a table; group; better: 1 higher, -1 lower, 0 neither; digits after the point; meaning."""

    title: str
    group: str
    better: int
    digits: int
    meaning: str


COLUMNS: dict[str, Column] = {
    "knn_photos": Column("kNN photos", "transfer", 1, 3, "which of 68 unseen photos, nearest neighbours"),
    "linear_photos": Column("linear photos", "transfer", 1, 3, "the same, linear probe"),
    "attentive_photos": Column("attentive photos", "transfer", 1, 3, "the same, a learned query on the patch tokens"),
    "knn_garments": Column("kNN garments", "transfer", 1, 3, "which of ten garments on a canvas, nearest neighbours"),
    "linear_garments": Column("linear garments", "transfer", 1, 3, "the same, linear probe"),
    "jaccard": Column("Jaccard", "objects", 1, 3, "attention of the last block on objects, best head an object"),
    "jaccard_mean": Column("Jaccard, mean", "objects", 1, 3, "the same, mean over heads"),
    "lost": Column("LOST", "objects", 1, 3, "CorLoc of LOST"),
    "tokencut": Column("TokenCut", "objects", 1, 3, "CorLoc of TokenCut"),
    "binding": Column("binding", "binding", 1, 3, "same-object AUROC, layer chosen on val"),
    "binding_layer": Column("layer", "binding", 0, 0, "the layer that val chose"),
    "rankme": Column("RankMe", "geometry", 0, 1, "effective rank of the photos' features"),
    "alignment": Column("alignment", "geometry", -1, 2, "distance of two views of a photo"),
    "uniformity": Column("uniformity", "geometry", -1, 2, "0 = collapsed, lower = spread out"),
    "params": Column("weights", "cost", -1, 0, "number of weights"),
    "gflops": Column("GFLOPs", "cost", -1, 2, "operations an image / 1e9"),
    "ms": Column("ms", "cost", -1, 1, "milliseconds an image here"),
    "images_seen": Column("images seen", "cost", 0, 0, "in training, as its card says"),
    "training_seconds": Column("training s", "cost", 0, 0, "of training, as its card says"),
}
GROUPS = tuple(dict.fromkeys(column.group for column in COLUMNS.values()))
