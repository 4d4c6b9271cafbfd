"""Interventions: exact where they must be exact, and on planted codes each does what its name says."""

from __future__ import annotations

import functools

import pytest
import torch

from sslcore.backbones import TimmBackbone, VisionTransformer
from sslcore.probes.same_object.fit import same_object_probe
from sslcore.probes.same_object.intervention import (
    EDITS,
    Edit,
    intervened,
    object_means,
    other_object,
    run_from,
)
from sslcore.probes.same_object.metrics import auroc
from sslcore.probes.same_object.subspace import Subspace, probe_subspace, random_subspace
from tests.probes.planted import coded_scenes, tokens_with_codes

SHAPE = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 3}


def subspace(width: int, k: int, seed: int = 0) -> Subspace:
    generator = torch.Generator().manual_seed(seed)
    basis = torch.linalg.qr(torch.randn(width, k, generator=generator))[0]
    return Subspace(basis, torch.randn(width, generator=generator), torch.rand(width, generator=generator) + 0.5)


def tokens_and_labels() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 4, (5, 16), generator=generator)
    return torch.randn(5, 16, 12, generator=generator), labels


@pytest.mark.parametrize("kind", EDITS)
def test_alpha_zero_changes_no_bit_and_the_rest_of_the_space_is_untouched(kind):
    tokens, labels = tokens_and_labels()
    where = subspace(12, 3)
    assert torch.equal(Edit(kind, where, 0.0, labels)(tokens), tokens)
    full = Edit(kind, where, 1.0, labels)
    change = (full(tokens) - tokens) / where.std
    torch.testing.assert_close(change @ where.basis @ where.basis.T, change, atol=1e-5, rtol=0)
    half = Edit(kind, where, 0.5, labels)
    torch.testing.assert_close((half(tokens) - tokens) / where.std, change / 2, atol=1e-5, rtol=0)
    assert half.energy == pytest.approx(full.energy / 4)


def test_the_identity_permutation_changes_no_bit():
    tokens, _ = tokens_and_labels()
    order = torch.arange(16).expand(5, -1)
    assert torch.equal(Edit("shuffle", subspace(12, 3), permutation=order)(tokens), tokens)


def test_removing_twice_is_removing_once_and_each_edit_is_what_it_says():
    tokens, labels = tokens_and_labels()
    where = subspace(12, 3)
    coordinates = lambda x: ((x - where.mean) / where.std) @ where.basis  # noqa: E731
    once = Edit("remove", where)(tokens)
    torch.testing.assert_close(Edit("remove", where)(once), once, atol=1e-5, rtol=1e-5)
    before, means = coordinates(tokens), {}
    torch.testing.assert_close(coordinates(once), before.mean(1, keepdim=True).expand_as(before), atol=1e-5, rtol=1e-4)
    shuffled = coordinates(Edit("shuffle", where, seed=3)(tokens))
    torch.testing.assert_close(shuffled.sort(1).values, before.sort(1).values, atol=1e-5, rtol=1e-4)
    injected = coordinates(Edit("inject", where, labels=labels)(tokens))
    wrong = coordinates(Edit("anti", where, labels=labels)(tokens))
    for image in range(5):
        ids = [i for i in labels[image].unique().tolist() if i > 0]
        means = {i: before[image, labels[image] == i].mean(0) for i in ids}
        following = dict(zip(ids, ids[1:] + ids[:1], strict=True))
        for token, label in enumerate(labels[image].tolist()):
            own, other = (means[label], means[following[label]]) if label else (before[image, token],) * 2
            torch.testing.assert_close(injected[image, token], own, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(wrong[image, token], other, atol=1e-5, rtol=1e-4)


def test_other_object_and_means():
    labels = torch.tensor([[0, 2, 2, 5], [3, 3, 0, 0], [0, 0, 0, 0]])
    assert other_object(labels).tolist() == [[0, 5, 5, 2], [3, 3, 0, 0], [0, 0, 0, 0]]
    values = torch.arange(12.0).view(3, 4, 1)
    assert object_means(values, labels, labels)[0].flatten().tolist() == [0, 1.5, 1.5, 3]


def test_controls_have_the_energy_of_what_they_control():
    tokens, labels = tokens_and_labels()
    where = subspace(12, 3)
    for kind in EDITS:
        edit, control = Edit(kind, where, 1.0, labels), Edit(kind, random_subspace(where, 5), 1.0, labels, match=where)
        own, other = (((e(tokens) - tokens) / where.std).square().sum((1, 2)) for e in (edit, control))
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-4)
        assert control.energy == pytest.approx(edit.energy, rel=1e-4) and edit.energy > 0
    everything = Edit("remove", Subspace(torch.eye(12), torch.zeros(12), torch.ones(12)))
    everything(tokens)
    assert everything.energy == pytest.approx(1)


@functools.cache
def planted():
    splits = [tokens_with_codes(count, seed, True) for count, seed in ((300, 0), (60, 1))]
    fitted = same_object_probe(*splits, kind="quadratic", epochs=12, lr=5e-2, weight_decay=1e-3)
    return fitted, probe_subspace(fitted, 9), coded_scenes(100, 2)


def test_planted_codes_are_sharpened_destroyed_and_reversed():
    fitted, where, scenes = planted()

    def score(kind: str, alpha: float = 1.0, control: bool = False) -> float:
        place, like = (random_subspace(where, 3), where) if control else (where, None)
        changed = Edit(kind, place, alpha, scenes.labels, match=like)(scenes.features[0])
        return auroc(fitted.score(changed[None], scenes.pairs)[0], scenes.pairs.same)

    plain = score("shuffle", 0.0)
    assert score("inject") > plain + 0.005 and score("inject") > 0.99
    steps = [score("shuffle", alpha) for alpha in (0.0, 0.25, 0.5, 1.0)]
    assert steps == sorted(steps, reverse=True) and steps[-1] < 0.53
    assert score("remove") < 0.56
    # The wrong object's mean for every token of an object: they still agree with each other.
    assert score("anti") > 0.9
    assert score("shuffle", 1.0, control=True) > 0.6  # equal energy elsewhere costs far less


def timm_net() -> TimmBackbone:
    timm = pytest.importorskip("timm")
    return TimmBackbone(timm.models.VisionTransformer(**SHAPE, num_classes=0)).eval()


@pytest.mark.parametrize("network", [lambda: VisionTransformer(**SHAPE).eval(), timm_net])
@pytest.mark.parametrize("layer", [0, 1, 3])
def test_the_rest_of_the_network_runs_on_the_changed_tokens(network, layer):
    torch.manual_seed(0)
    backbone, images = network(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = backbone(images, return_layers=True)
        same = torch.equal
        with intervened(backbone, layer, Edit("shuffle", subspace(24, 2), 0.0)):
            assert same(backbone(images).patch_tokens, plain.patch_tokens)
        with intervened(backbone, layer, lambda x: x + 1):
            moved = backbone(images, return_layers=True)
        assert same(backbone(images).patch_tokens, plain.patch_tokens)  # the hook is gone
    if layer:
        torch.testing.assert_close(moved.layers[layer][:, 1:], plain.layers[layer][:, 1:] + 1)
        assert same(moved.layers[layer][:, :1], plain.layers[layer][:, :1])  # the class token is left alone
        assert same(moved.layers[layer - 1], plain.layers[layer - 1])
    assert not torch.allclose(moved.patch_tokens, plain.patch_tokens)


@pytest.mark.parametrize("network", [lambda: VisionTransformer(**SHAPE).eval(), timm_net])
def test_starting_in_the_middle_gives_the_same(network):
    torch.manual_seed(0)
    backbone, images = network(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        plain = backbone(images, return_layers=True)
        for layer in (0, 2, 3):
            torch.testing.assert_close(run_from(backbone, plain.layers[layer], layer), plain.patch_tokens)
            edit = Edit("shuffle", subspace(24, 2), 1.0, seed=4)
            with intervened(backbone, layer, edit):
                whole = backbone(images).patch_tokens
            torch.testing.assert_close(run_from(backbone, plain.layers[layer], layer, edit), whole)


def test_it_works_under_a_mask():
    backbone = VisionTransformer(**SHAPE).eval()
    ids = torch.rand(2, 16).argsort(1)[:, :5]
    seen = []
    with torch.no_grad(), intervened(backbone, 1, lambda x: seen.append(x.shape) or x):
        backbone(torch.randn(2, 3, 32, 32), ids_keep=ids)
    assert seen == [(2, 5, 24)]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="anti, inject, remove, shuffle"):
        Edit("erase", subspace(12, 3))
    with pytest.raises(ValueError, match="labels"):
        Edit("inject", subspace(12, 3))
    with pytest.raises(ValueError, match="layer"), intervened(VisionTransformer(**SHAPE), 4, lambda x: x):
        pass
