"""Many networks in one batched run end where each ends alone; tokens under a mask stand where they belong."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import VisionTransformer, create_backbone
from sslcore.probes.frozen import extract
from sslcore.probes.same_object.curves import all_layers, layer_curves, masked_layers
from sslcore.probes.same_object.report import SPLITS, binding_report, scene_pairs
from tests.probes.planted import painted_scenes

SCENES = [painted_scenes(count, seed) for count, seed in ((60, 0), (30, 1), (50, 2))]
SHAPE = {"img_size": 32, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}


def test_one_run_for_all_networks_and_widths():
    torch.manual_seed(0)
    nets = {"a": VisionTransformer(**SHAPE), "b": VisionTransformer(**SHAPE | {"embed_dim": 24}),
            "c": VisionTransformer(**SHAPE)}  # fmt: skip
    pairs = {s: scene_pairs(part, 4, (8, 8), 0) for s, part in zip(SPLITS, SCENES, strict=True)}
    features = {name: all_layers(net, SCENES) for name, net in nets.items()}
    curves = layer_curves(features, pairs, epochs=2)
    assert list(curves) == ["a", "b", "c"]
    for name, net in nets.items():
        alone = binding_report(net, *SCENES, controls=False, untrained=False, epochs=2)
        expected = [score.auroc for score in alone.layers.values()]
        assert [score.auroc for score in curves[name].scores] == pytest.approx(expected, abs=3e-3)
        assert curves[name].best == alone.best_layer
        again = curves[name].fitted.score(features[name]["test"], pairs["test"])
        torch.testing.assert_close(again, curves[name].logits, atol=1e-4, rtol=1e-4)


def test_visible_tokens_stand_at_their_places_or_at_wrong_ones():
    backbone = VisionTransformer(**SHAPE | {"depth": 2}).eval()
    images = SCENES[0].images[:5]
    everything = torch.arange(64).expand(5, -1)
    whole = extract(backbone, images, "tokens", layers="all")
    torch.testing.assert_close(masked_layers(backbone, images, everything), whole, atol=1e-5, rtol=1e-4)
    ids = torch.rand(5, 64, generator=torch.Generator().manual_seed(0)).argsort(1)[:, :16]
    seen = masked_layers(backbone, images, ids, layers=[0])
    index = ids[None, :, :, None].expand(1, -1, -1, 16)
    torch.testing.assert_close(seen.gather(2, index), whole[:1].gather(2, index), atol=1e-5, rtol=1e-4)
    hidden = torch.ones(5, 64, dtype=torch.bool).scatter(1, ids, False)
    assert bool((seen[0][hidden] == 0).all())
    wrong = masked_layers(backbone, images, ids, layers=[0], misaligned=True)
    order = ids.sort(1).values[None, :, :, None].expand(1, -1, -1, 16)
    torch.testing.assert_close(wrong.gather(2, order), seen.gather(2, index))


def test_no_network_is_refused():
    with pytest.raises(ValueError, match="at least one"):
        layer_curves({}, {})


def test_a_conv_net_has_no_layers_of_one_shape():
    with pytest.raises(ValueError, match="one shape"):
        all_layers(create_backbone("resnet18"), SCENES)
