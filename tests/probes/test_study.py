"""One study end to end, on a small network and through the bridge to timm."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import TimmBackbone, VisionTransformer
from sslcore.data import load
from sslcore.probes.same_object.study import use_study

SHAPE = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}
SCENES = [load("twins", split, num=count, seed=70 + i) for i, (split, count) in enumerate(
    (("train", 30), ("val", 15), ("test", 30)))]  # fmt: skip


def timm_net() -> TimmBackbone:
    timm = pytest.importorskip("timm")
    return TimmBackbone(timm.models.VisionTransformer(**SHAPE, num_classes=0)).eval()


@pytest.mark.parametrize("network", [lambda: VisionTransformer(**SHAPE).eval(), timm_net])
def test_a_study_reports_everything(network):
    torch.manual_seed(0)
    study = use_study(network(), 1, SCENES, k=4, epochs=2)
    assert set(study.changes) == {"remove", "shuffle", "inject", "anti"}
    assert set(study.changes["shuffle"]) == {"probe", "pca", "place", "random"}
    assert study.changes["shuffle"]["probe"]["IoU"].shape == (30,)
    assert 0 <= study.head <= 1 and 0 < study.energy["remove"] < study.energy["shuffle"]
    numbers = study.numbers("random")
    assert {"shuffle ARI", "inject IoU", "twins", "head", "ARI"} <= set(numbers)
    assert "shuffle random" in study.table()


def test_alpha_zero_changes_nothing():
    settings = {"k": 4, "alpha": 0.0, "edits": ("shuffle",), "epochs": 1}
    study = use_study(VisionTransformer(**SHAPE).eval(), 2, SCENES, **settings)
    assert int(study.before["kNN"].isnan().sum()) == 15  # the other half asks
    for outcome in study.changes["shuffle"]["probe"].values():
        assert float(outcome.nan_to_num().abs().max()) == 0
