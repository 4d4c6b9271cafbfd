"""The card of one network: planted readings with known answers, every kind of network, bad outputs named."""

from __future__ import annotations

import functools
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.probes import report
from sslcore.probes.network_report import (
    SIZES,
    Readings,
    Sizes,
    as_backbone,
    image_size,
    network_cost,
    pixel_scores,
    read_network,
    report_sets,
    score_networks,
)
from sslcore.probes.network_report.images import resized, split_by_class
from sslcore.probes.network_report.readings import MOST_LAYERS, coarser
from sslcore.probes.network_report.scores import ridge_accuracy
from sslcore.probes.same_object import token_labels
from sslcore.training.cost import backbone_work
from tests.probes.planted import TinyTransformer

SMALL = Sizes(140, (20, 10, 10), 12, (40, 16, 16))


@functools.cache
def sets():
    return report_sets(64, SMALL)


def vit(**changes):
    torch.manual_seed(0)
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2}
    return VisionTransformer(**(shape | changes))


def tiny():
    torch.manual_seed(0)
    return TinyTransformer()


class Vectors(nn.Module):
    """One vector an image: mean colours of the four quarters."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Linear(12, 12)

    def forward(self, x):
        return self.scale(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


def planted_readings():
    """Features that hold the answers: the photo's class, the object's id, the object's mask."""
    given = sets()
    tensors = {}
    for split, part in given.photos.items():
        code = nn.functional.one_hot(part.labels, 68).float()
        tensors[f"photos_{split}_cls"] = code
        tensors[f"photos_{split}_tokens"] = code[:, None].repeat(1, 4, 1).half()
    for split, part in given.garments.items():
        tensors[f"garments_{split}_cls"] = torch.ones(len(part), 3)
    generator = torch.Generator().manual_seed(0)
    for split, part in given.scenes.items():
        ids = nn.functional.one_hot(token_labels(part.masks, 8)[0], 6).float()
        noise = torch.randn(ids.shape, generator=generator)
        tensors[f"scenes_{split}_layers"] = torch.stack([noise, ids + 0.1 * noise]).half()
    objects = token_labels(given.singles["test"].masks, 8)[0] > 0
    tensors["singles_attention"] = (0.001 + objects.float()).view(-1, 1, 8, 8).half()
    tensors["singles_keys"] = torch.stack([objects.float(), 1 - objects.float()], -1).half()
    facts = {"layers": [0, 1], "grid": [8, 8], "params": 1, "gflops": 0.0, "ms": 0.0, "img_size": 64, "width": 68}
    return Readings(tensors, {}, facts)


def test_planted_answers_are_found():
    rows, curves = score_networks({"planted": planted_readings()}, sets())
    row = rows["planted"]
    assert row["knn_photos"] == 1.0 and row["linear_photos"] > 0.5 < row["attentive_photos"]
    assert row["alignment"] == 0 and row["rankme"] > 40
    assert row["jaccard"] == row["jaccard_mean"] > 0.4  # three fifths of the object, by definition
    assert row["lost"] > 0.6 and row["tokencut"] > 0.6
    assert row["binding"] > 0.95 and row["binding_layer"] == 1 and curves["planted"].layers[0].auroc < 0.7
    assert row["knn_garments"] < 0.4  # constant features know nothing


def test_the_pool_with_the_answers_is_read():
    readings = planted_readings()
    for split in ("train", "val", "test"):
        code = readings.tensors[f"photos_{split}_cls"]
        readings.tensors[f"photos_{split}_mean"] = code
        readings.tensors[f"photos_{split}_cls"] = torch.randn(code.shape, generator=torch.Generator().manual_seed(3))
    row = score_networks({"planted": readings}, sets())[0]["planted"]
    assert row["pool_photos"] == "mean" and row["knn_photos"] == 1.0
    train, val = ((readings.tensors[f"photos_{s}_mean"], sets().photos[s].labels) for s in ("train", "val"))
    assert ridge_accuracy(train, val) == 1.0 and ridge_accuracy((train[0] * 0, train[1]), val) < 0.2


def test_a_network_scores_the_same_in_company():
    readings = {name: read_network(vit(depth=depth), sets()) for name, depth in (("one", 1), ("two", 2))}
    together = score_networks(readings, sets())
    for name in readings:
        rows, curves = score_networks({name: readings[name]}, sets())
        assert rows[name]["knn_photos"] == together[0][name]["knn_photos"]
        alone, joined = (c[name].layers for c in (curves, together[1]))
        assert [s.auroc for s in alone.values()] == pytest.approx([s.auroc for s in joined.values()], abs=2e-3)


def test_report_reads_a_transformer_with_every_probe(capsys):
    card = report(vit(), sizes=SMALL, name="tiny vit")
    for key in ("knn_photos", "linear_garments", "attentive_photos", "jaccard", "tokencut", "binding", "rankme", "ms"):
        assert key in card.scores, key
    for key in ("knn_photos_untrained", "knn_photos_pixels", "corloc_centre", "binding_position", "jaccard_untrained"):
        assert key in card.scores, key
    assert card.skipped == {} and list(card.binding.layers) == [0, 1, 2] == list(card.binding.untrained)
    assert json.loads(json.dumps(card.as_dict(), allow_nan=False))["name"] == "tiny vit"
    said = capsys.readouterr().out
    assert "tiny vit" in said and "binding at layer 2" in said and repr(card) in said
    assert len(card.plot().axes) == 2


def test_an_untrained_network_ties_with_its_control():
    torch.manual_seed(1)
    network = vit()
    card = report(network, sets=sets(), untrained=network, quiet=True)
    for key in ("knn_photos", "jaccard", "lost", "binding", "rankme"):
        assert card.scores[key] == pytest.approx(card.scores[f"{key}_untrained"])


def test_same_network_same_card():
    first, second = (report(tiny(), img_size=64, sets=sets(), quiet=True).scores for _ in range(2))
    assert {k: v for k, v in first.items() if k != "ms"} == {k: v for k, v in second.items() if k != "ms"}


def test_the_network_is_left_as_it_was():
    network = vit().train()
    network.blocks[0].eval()
    before = [module.training for module in network.modules()]
    report(network, sets=sets(), untrained=False, quiet=True)
    assert [module.training for module in network.modules()] == before
    assert not any(module._forward_hooks for module in network.modules())


def test_conv_nets_say_what_does_not_apply():
    card = report(small_convnet(3, (4, 6, 8)), img_size=64, sets=sets(), quiet=True)
    assert "attention" in card.skipped["attention Jaccard"]
    assert "stage" in card.skipped["binding at other layers"] and "binding" in card.scores
    assert "tokencut" in card.scores and "jaccard" not in card.scores and card.facts["discovery_on"] == "patch tokens"
    assert "left out: attention Jaccard" in card.table()


def test_vectors_get_the_probes_that_need_no_patches():
    card = report(Vectors(), img_size=64, sets=sets(), quiet=True)
    assert {"knn_photos", "linear_garments", "rankme", "uniformity"} <= set(card.scores)
    assert {"attentive probe", "attention Jaccard", "LOST and TokenCut", "binding"} == set(card.skipped)
    assert card.binding is None and len(card.plot().axes) == 1


def test_one_channel_networks_read_grey_images():
    card = report(small_convnet(1, (4, 8)), img_size=64, sets=sets(), untrained=False, quiet=True)
    assert "knn_photos" in card.scores


def test_timm_models_plug_in():
    timm = pytest.importorskip("timm")
    shape = {"img_size": 64, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2, "num_classes": 0}
    card = report(timm.create_model("vit_tiny_patch16_224", **shape), sets=sets(), quiet=True)
    assert card.skipped == {} and "binding_untrained" in card.scores and card.facts["discovery_on"] == "attention keys"
    coarse = report(timm.create_model("resnet10t"), img_size=64, sets=sets(), untrained=False, quiet=True)
    assert "2 x 2" in coarse.skipped["LOST and TokenCut"] and "attention Jaccard" in coarse.skipped
    assert "binding" in coarse.scores or "binding" in coarse.skipped


def test_maps_and_sequences_are_understood():
    maps = nn.Conv2d(3, 5, 8, 8)
    assert as_backbone(maps, 64)(torch.zeros(2, 3, 64, 64)).grid == (8, 8)
    sequence = nn.Sequential(nn.Conv2d(3, 5, 16, 16), nn.Flatten(2))

    class WithClass(nn.Module):
        def forward(self, x):
            tokens = sequence(x).transpose(1, 2)
            return torch.cat([tokens[:, :1] * 0 + 7, tokens], 1)

    tokens = as_backbone(WithClass(), 64)(torch.zeros(2, 3, 64, 64))
    assert tokens.num_prefix_tokens == 1 and bool((tokens.cls_token == 7).all()) and tokens.patch_tokens.shape[1] == 16


class Returns(nn.Module):
    """Returns what it is told to, whatever it reads."""

    def __init__(self, output):
        super().__init__()
        self.output, self.weight = output, nn.Linear(1, 1)

    def forward(self, x):
        return self.output(x)


@pytest.mark.parametrize(
    "output, message",
    [
        (lambda x: {"features": x}, "got dict"),
        (lambda x: x.flatten(), r"got \(12288,\)"),
        (lambda x: x.flatten(2).transpose(1, 2)[:, :7], "7 tokens"),
        (lambda x: x.mean((2, 3)).repeat(2, 1), r"for 1 images, got \(2, 3\)"),
        (lambda x: x.mean((2, 3)).long(), "int64"),
        (lambda x: x.mean((2, 3)) * float("nan"), "finite"),
        (lambda x: x.mean((2, 3))[:, :0], "got"),
    ],
)
def test_bad_outputs_are_named(output, message):
    with pytest.raises(ValueError, match=message):
        report(Returns(output), img_size=64, sets=sets(), quiet=True)


def test_features_that_break_on_some_images_are_named():
    # finite on the black image of the first look, infinite where there is something to see
    with pytest.raises(ValueError, match="finite"):
        report(Returns(lambda x: x.mean((2, 3)) / (x.mean() < -1.5)), img_size=64, sets=sets(), quiet=True)


def test_other_bad_arguments_are_named():
    with pytest.raises(ValueError, match="img_size"):
        report(Vectors(), sets=sets())
    with pytest.raises(TypeError, match=r"nn\.Module"):
        report(3)
    with pytest.raises(ValueError, match="named_report"):
        report("mae_vit")
    with pytest.raises(ValueError, match="32 px"):
        report(vit(img_size=32), sets=sets())
    with pytest.raises(ValueError, match="unknown sizes"):
        report_sets(64, "huge")
    with pytest.raises(ValueError, match="photos"):
        report_sets(64, Sizes(20, (0, 0, 0), 12, (20, 20, 20)))
    with pytest.raises(ValueError, match="singles"):
        report_sets(64, Sizes(140, (0, 0, 0), 3, (20, 20, 20)))
    with pytest.raises(ValueError, match="nobody"):
        score_networks({"planted": planted_readings()}, sets(), {"planted": "nobody"})


def test_cost_agrees_with_the_formula():
    network = vit()
    cost = network_cost(network, torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert cost["gflops"] * 1e9 == backbone_work(network, 64).forward
    assert cost["params"] == backbone_work(network, 64).weights and cost["ms"] > 0
    assert image_size(network) == 64 and image_size(network, 32) == 32


def test_deep_networks_are_read_at_a_few_layers():
    given = read_network(vit(depth=9, embed_dim=8), sets())
    assert given.facts["layers"][0] == 0 and given.facts["layers"][-1] == 9
    assert len(given.facts["layers"]) == MOST_LAYERS == len(given.tensors["scenes_test_layers"])
    assert "evenly spaced" in given.skipped["binding at other layers"]


def test_large_values_stay_in_full_precision():
    class Loud(nn.Module):
        def forward(self, x):
            return nn.functional.avg_pool2d(x, 8) * 1e6

    given = read_network(as_backbone(Loud(), 64), sets())
    assert given.tensors["photos_train_tokens"].dtype == torch.float32
    assert read_network(vit(), sets()).tensors["photos_train_tokens"].dtype == torch.float16


@given(st.lists(st.integers(0, 5), min_size=1, max_size=60))
def test_splits_are_a_partition_by_class(labels):
    labels = torch.tensor(labels)
    found = split_by_class(labels)
    together = torch.cat(list(found.values()))
    assert sorted(together.tolist()) == list(range(len(labels)))
    for index in found.values():
        assert bool((labels[index].diff() >= 0).all())
    for value in labels.unique().tolist():
        count, train = int((labels == value).sum()), int((labels[found["train"]] == value).sum())
        assert abs(train - 4 * count / 7) <= 1


def test_sets_share_nothing_but_the_photos():
    given = sets()
    for split in ("train", "val", "test"):
        assert len(given.scenes[split]) == dict(zip(("train", "val", "test"), SMALL.scenes, strict=True))[split]
        assert given.photos[split].images.shape[1:] == (3, 64, 64)
    assert sum(len(part) for part in given.photos.values()) == 140
    assert report_sets(96, Sizes(140, (0, 0, 0), 12, (10, 10, 10))).garments == {}
    assert set(SIZES) == {"tiny", "quick", "standard", "full"}
    assert "knn_photos" in pixel_scores(given) and "linear_garments" in pixel_scores(given)


def test_resizing_and_pooling_keep_the_mean():
    images = torch.randint(256, (2, 1, 40, 40), dtype=torch.uint8)
    bigger = resized(images, 80)
    assert bigger.shape == (2, 3, 80, 80) and abs(float(bigger.float().mean() - images.float().mean())) < 1
    tokens = torch.randn(2, 14 * 14, 3)
    pooled = coarser(tokens, (14, 14))
    assert pooled.shape == (2, 49, 3)
    torch.testing.assert_close(pooled[:, 0], tokens.view(2, 14, 14, 3)[:, :2, :2].mean((1, 2)))
    assert coarser(tokens[:, :64], (8, 8)).shape == (2, 64, 3) and coarser(tokens[:, :169], (13, 13)).shape[1] == 169
