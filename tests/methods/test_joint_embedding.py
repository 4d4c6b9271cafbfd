"""SimCLR, BYOL, SimSiam, Barlow Twins, VICReg and Supervised against their equations written out, and their guards."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sslcore.methods.byol import cosine_momentum
from tests.methods.small_methods import small_batch, small_method


def views_of(method, seed: int = 0):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def test_simclr_encodes_both_views_in_one_pass_and_takes_cross_entropy():
    method = small_method("simclr", "convnet", temperature=0.3)
    views = views_of(method)
    z = F.normalize(method.projector(method.features(torch.cat(views))), dim=1)
    logits = (z @ z.T / 0.3).fill_diagonal_(-math.inf)
    partner = torch.arange(16).roll(8)
    torch.testing.assert_close(method.loss(views), F.cross_entropy(logits, partner))


def test_byol_is_the_squared_distance_of_unit_vectors():
    method = small_method("byol", "convnet")
    for weight in method.teacher_projector.parameters():
        weight.data.mul_(1.1)
    views = views_of(method)
    expected = 0.0
    for a, b in ((0, 1), (1, 0)):
        p = F.normalize(method.predictor(method.projector(method.features(views[a]))), dim=1)
        z = F.normalize(method.teacher_projector(method.features(views[b], method.teacher_backbone)), dim=1)
        expected = expected + (p - z).square().sum(1).mean()
    torch.testing.assert_close(method.loss(views), expected)


def test_byol_momentum_rises_to_one():
    assert cosine_momentum(0.9, 0.0) == pytest.approx(0.9)
    assert cosine_momentum(0.9, 0.5) == pytest.approx(0.95)
    assert cosine_momentum(0.9, 1.0) == pytest.approx(1.0)
    method = small_method("byol", momentum=0.0)
    with torch.no_grad():
        method.projector[0].weight.add_(1.0)
    before = method.teacher_projector[0].weight.clone()
    method.after_step(0.5)
    torch.testing.assert_close(method.teacher_projector[0].weight, before + 0.5)


def test_byol_without_predictor_compares_projections():
    method = small_method("byol", predictor=False)
    assert isinstance(method.predictor, nn.Identity)
    views = views_of(method)
    same = (views[0], views[0])  # student and teacher start alike: nothing to predict, the loss is already at its least
    assert method.loss(same).item() == pytest.approx(0.0, abs=1e-5)
    assert small_method("byol").loss(same).item() > 0.1


@pytest.mark.parametrize("stop", [True, False])
def test_simsiam_gradient_with_and_without_the_stop(stop: bool):
    method = small_method("simsiam", "convnet", stop_gradient=stop)
    views = views_of(method)
    method.loss(views).backward()
    got = method.projector[0].weight.grad.clone()
    method.zero_grad()
    z0, z1 = (method.projector(method.features(view)) for view in views)
    targets = (z0.detach(), z1.detach()) if stop else (z0, z1)
    cosines = [F.cosine_similarity(method.predictor(z), t).mean() for z, t in ((z0, targets[1]), (z1, targets[0]))]
    (-0.5 * sum(cosines)).backward()
    torch.testing.assert_close(got, method.projector[0].weight.grad)
    method.zero_grad()
    # The other setting must give another gradient, else the switch does nothing.
    method.stop_gradient = not stop
    method.loss(views).backward()
    assert not torch.allclose(got, method.projector[0].weight.grad, rtol=1e-2)


def test_simsiam_projector_ends_in_a_norm_without_gain():
    last = small_method("simsiam").projector[-1]
    assert isinstance(last, nn.BatchNorm1d) and not last.affine


def test_barlow_twins_measures_the_cross_correlation_of_separate_passes():
    method = small_method("barlow_twins", "convnet", lambd=0.1)
    views = views_of(method)
    a, b = (method.projector(method.features(view)) for view in views)
    a, b = ((z - z.mean(0)) / (z.var(0, unbiased=False) + 1e-5).sqrt() for z in (a, b))
    correlation = a.T @ b / len(a)
    terms = method.loss(views)
    off = correlation.square().sum() - correlation.diagonal().square().sum()
    torch.testing.assert_close(terms.redundancy, 0.1 * off)
    torch.testing.assert_close(terms.total, (correlation.diagonal() - 1).square().sum() + 0.1 * off)
    method.lambd = 0.0
    assert method.loss(views).redundancy.item() == 0.0


def test_vicreg_weights_its_terms():
    method = small_method("vicreg", "convnet", sim=2.0, std=3.0, cov=5.0)
    views = views_of(method)
    z0, z1 = (method.projector(method.features(view)) for view in views)
    hinge = sum(F.relu(1 - (z.var(0) + 1e-4).sqrt()).mean() for z in (z0, z1)) / 2
    covs = [torch.cov(z.T) for z in (z0, z1)]
    spill = sum((c.square().sum() - c.diagonal().square().sum()) / len(c) for c in covs)
    terms = method.loss(views)
    torch.testing.assert_close(terms.invariance, 2 * F.mse_loss(z0, z1))
    torch.testing.assert_close(terms.variance, 3 * hinge)
    torch.testing.assert_close(terms.covariance, 5 * spill)
    torch.testing.assert_close(terms.total, terms.invariance + terms.variance + terms.covariance)
    method.std = 0.0
    assert method.loss(views).variance.item() == 0.0


def test_supervised_is_cross_entropy_and_needs_labels():
    method = small_method("supervised", label_smoothing=0.1)
    images, labels = views_of(method)
    expected = F.cross_entropy(method.classifier(method.backbone(images).cls_token), labels, label_smoothing=0.1)
    torch.testing.assert_close(method.loss((images, labels)), expected)
    with pytest.raises(ValueError, match="Supervised: expected labels in the data, got images only"):
        method.views({**small_batch(), "labels": None})
    with pytest.raises(ValueError, match="num_classes: expected at least 2, got 1"):
        small_method("supervised", num_classes=1)


def test_supervised_with_several_answers_an_image_is_binary_cross_entropy():
    method = small_method("supervised", target="presence")
    assert method.needs == ("presence",)
    images = torch.randn(4, 3, 16, 16)
    answers = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]], dtype=torch.bool)
    probability = method.logits(images).sigmoid()
    expected = -torch.where(answers, probability.log(), (1 - probability).log()).mean()
    torch.testing.assert_close(method.loss((images, answers)), expected)
    with pytest.raises(ValueError, match="Supervised: expected presence in the data"):
        method.views({"images": torch.zeros(4, 3, 16, 16, dtype=torch.uint8), "labels": None})
