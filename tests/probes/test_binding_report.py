"""The common read-out end to end: a planted layer is found, controls sit at chance, bad input is named."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import pytest
import torch

from sslcore.data import load
from sslcore.probes.same_object.controls import colour_features, colour_gaps, pixel_features, position_features
from sslcore.probes.same_object.labels import token_labels
from sslcore.probes.same_object.pairs import Pairs
from sslcore.probes.same_object.report import SPLITS, binding_auroc, binding_report
from tests.probes.planted import TinyTransformer, painted_scenes

SCENES = [painted_scenes(count, seed) for count, seed in ((120, 0), (40, 1), (100, 2))]


def planted_features(strength: float) -> dict[str, torch.Tensor]:
    """Three layers (noise, noise + code, noise) of tokens whose code is fresh for every object."""
    generator = torch.Generator().manual_seed(4)
    features = {}
    for name, scenes in zip(SPLITS, SCENES, strict=True):
        labels, _ = token_labels(scenes.masks, 4)
        codes = torch.randn(len(labels), 5, 6, generator=generator)
        noise = torch.randn(3, len(labels), 64, 6, generator=generator)
        noise[1] += strength * codes.gather(1, labels[..., None].expand(-1, -1, 6))
        features[name] = noise
    return features


def test_the_planted_layer_is_chosen_and_controls_are_at_chance():
    report = binding_report(planted_features(2.0), *SCENES, match="position", lr=1e-2)
    assert report.best_layer == 1 and report.best.auroc > 0.8
    assert report.best.low < report.best.auroc < report.best.high
    assert abs(report.layers[0].auroc - 0.5) < 0.1
    assert set(report.controls) == {"position", "colour", "pixels", "colour gap", "shuffled"}
    assert report.controls["position"].auroc == pytest.approx(0.5, abs=1e-9)
    for name in ("colour", "pixels", "shuffled"):  # twins are painted alike
        assert abs(report.controls[name].auroc - 0.5) < 0.12
    assert report.facts["prior"] == report.facts["majority"] == 0.5
    assert json.loads(json.dumps(report.as_dict()))["best_layer"] == 1
    assert "layer 1 *" in report.table() and "position" in report.table()
    axes = report.plot(plt.figure().add_subplot())
    assert list(axes.lines[0].get_ydata()) == [score.auroc for score in report.layers.values()]
    plt.close("all")


def test_without_matching_position_alone_answers():
    report = binding_report(planted_features(0.0), *SCENES, match="none")
    assert report.controls["position"].auroc > 0.85 > 0.65 > report.best.auroc


def test_a_network_is_read_at_every_layer_beside_its_untrained_copy():
    net = TinyTransformer(patch_size=4).train()
    report = binding_report(net, *SCENES, epochs=2)
    assert list(report.layers) == list(report.untrained) == [0, 1, 2] and "untrained" in report.controls
    assert net.training
    chosen = binding_report(net, *SCENES, layers=[2, 0], epochs=2, controls=False, untrained=False)
    assert list(chosen.layers) == [2, 0] and not chosen.controls
    assert chosen.layers[2].auroc == pytest.approx(report.layers[2].auroc, abs=2e-3)
    assert binding_auroc(net, *SCENES, epochs=2) == pytest.approx(report.best.auroc, abs=2e-3)
    same = binding_report(net, *SCENES, epochs=2, controls=False, untrained=net)
    assert same.untrained[1].auroc == pytest.approx(report.layers[1].auroc, abs=2e-3)


def test_the_layer_is_chosen_on_val_never_on_test():
    features = planted_features(2.0)
    features["test"] = features["test"][[1, 0, 2]]  # on test, the code now lies in layer 0
    assert binding_report(features, *SCENES, controls=False).best_layer == 1


def test_control_features():
    places = position_features(2, (3, 4))
    assert places.shape == (2, 12, 49) and torch.equal(places[0], places[1])
    assert torch.linalg.matrix_rank(places[0].double()) == 12  # every place has a code of its own
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    patch = images[1, :, 4:, :4].float().flatten(1) / 255
    moments = (patch @ patch.T / 16)[*torch.triu_indices(3, 3)]
    torch.testing.assert_close(colour_features(images, 4)[1, 2], torch.cat([patch.mean(1), moments]))
    train, test = pixel_features(images, [images[:1]], 4, dims=5)
    assert train.shape == (2, 4, 5)
    torch.testing.assert_close(train[:1], test)
    assert float(train.flatten(0, 1).mean(0).abs().max()) < 1e-5


def test_bad_input_is_named():
    features = planted_features(1.0)
    with pytest.raises(ValueError, match="missing"):
        binding_report({"train": features["train"]}, *SCENES)
    with pytest.raises(ValueError, match="grid"):
        binding_report({name: part[:, :, :63] for name, part in features.items()}, *SCENES)
    bare = type(SCENES[0])(images=SCENES[0].images, masks=None, extras={})
    with pytest.raises(ValueError, match="masks"):
        binding_report(features, bare, *SCENES[1:])
    lonely = type(SCENES[0])(images=SCENES[0].images, masks=SCENES[0].masks, extras={})
    with pytest.raises(ValueError, match="twin_of"):
        binding_report(features, lonely, *SCENES[1:])
    with pytest.raises(ValueError, match="finite"):
        binding_report({name: part * float("nan") for name, part in features.items()}, *SCENES)


def test_the_colour_gap_is_a_score_of_its_own_and_twins_leak_it():
    """Two parts of one object differ more than matched patches across twins: above one half without any network."""
    twins = [load("twins", split, num=120) for split in ("train", "val", "test")]
    features = {part.split: torch.randn(120, 64, 4) for part in twins}
    gap = binding_report(features, *twins, epochs=1).controls["colour gap"]
    assert gap.low <= gap.auroc <= gap.high and gap.auroc > 0.55 and gap.val_auroc > 0.5
    images = torch.zeros(1, 3, 4, 4)
    images[0, :, :2, 2:] = 0.5
    first, second = torch.tensor([0, 2]), torch.tensor([1, 3])
    pairs = Pairs(torch.zeros(2).long(), first, second, torch.tensor([True, False]), (2, 2))
    assert torch.allclose(colour_gaps(images, 2, pairs), torch.tensor([0.75**0.5, 0.0]))
