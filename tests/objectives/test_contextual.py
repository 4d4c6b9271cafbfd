"""data2vec 2.0: targets equal torch's norms and a loop, the loss a transcription; copies share one target."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from sslcore.objectives import contextual_targets, data2vec_loss


def layers_of(count=3, batch=2, patches=6, dim=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, patches, dim, generator=generator) * (k + 1) + k for k in range(count)]


def numpy_targets(layers, instance_norm):
    """One image, one channel, one patch at a time."""
    batch, patches, dim = layers[0].shape
    out = np.zeros((batch, patches, dim))
    for b in range(batch):
        summed = np.zeros((patches, dim))
        for layer in layers:
            one = layer[b].double().numpy().copy()
            for d in range(dim if instance_norm else 0):
                one[:, d] = (one[:, d] - one[:, d].mean()) / math.sqrt(one[:, d].var() + 1e-5)
            summed += one
        for n in range(patches):
            row = summed[n] / len(layers)
            out[b, n] = (row - row.mean()) / math.sqrt(row.var() + 1e-5)
    return out


@pytest.mark.parametrize("instance_norm", [True, False])
def test_targets_equal_a_loop_and_torch(instance_norm):
    layers = layers_of()
    got = contextual_targets(layers, instance_norm)
    np.testing.assert_allclose(got, numpy_targets(layers, instance_norm), atol=2e-5)
    if instance_norm:
        mean = torch.stack([F.instance_norm(layer.mT).mT for layer in layers]).mean(0)
        torch.testing.assert_close(got, F.layer_norm(mean, (5,)))


@given(st.integers(1, 3), st.integers(3, 7), st.integers(3, 8), st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_what_an_image_shares_and_its_scale_do_not_count(count, patches, dim, seed):
    layers = layers_of(count, 2, patches, dim, seed)
    other = [layer * (0.5 + torch.rand(2, 1, dim)) + 3 * torch.randn(2, 1, dim) for layer in layers]
    first, second = contextual_targets(layers), contextual_targets(other)
    # instance norm lets eps through where the patches of a channel hardly differ
    assert (first - second).abs().mean() < 2e-3
    torch.testing.assert_close(first.mean(2), torch.zeros(2, patches), atol=1e-5, rtol=0)
    assert not torch.allclose(contextual_targets(layers, False), contextual_targets(other, False), atol=0.05)


def test_layers_are_normed_before_they_are_averaged():
    small, large = layers_of(2)
    loud = contextual_targets([small, 100 * large])
    torch.testing.assert_close(loud, contextual_targets([small, large]), atol=2e-3, rtol=0)
    assert not torch.allclose(loud, contextual_targets([large]), atol=0.1)


def random_case(batch=2, copies=3, patches=6, dim=5, hidden=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(batch, copies, patches, generator=generator).argsort(2)
    pred = torch.randn(batch, copies, patches, dim, generator=generator)
    cls = torch.randn(batch, copies, dim, generator=generator)
    return pred, contextual_targets(layers_of(2, batch, patches, dim, seed)), order < hidden, cls


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_loss_equals_a_transcription(beta):
    pred, target, mask, cls = random_case()
    terms = data2vec_loss(pred, target, mask, cls, cls_weight=1.7, beta=beta)

    def cost(error):
        total = 0.0
        for value in np.abs(error):
            small = beta == 0 or value < beta
            total += (value**2 / (2 * beta) if beta else value**2) if small else value - beta / 2
        return total / math.sqrt(len(error))

    p, t, c = pred.double().numpy(), target.double().numpy(), cls.double().numpy()
    patches = [cost(p[b, m, n] - t[b, n]) for b, m, n in mask.nonzero().tolist()]
    classes = [cost(c[b, m] - t[b].mean(0)) for b in range(2) for m in range(3)]
    assert terms.patches.item() == pytest.approx(np.mean(patches), rel=1e-5)
    assert terms.cls.item() == pytest.approx(1.7 * np.mean(classes), rel=1e-5)
    assert terms.total.item() == pytest.approx(np.mean(patches) + 1.7 * np.mean(classes), rel=1e-5)
    assert data2vec_loss(pred, target, mask).cls == 0


@pytest.mark.parametrize("dim", [5, 64, 768])
def test_zero_costs_the_root_of_the_width_and_the_truth_nothing(dim):
    _, target, mask, _ = random_case(dim=dim)
    nothing = torch.zeros(2, 3, 6, dim)
    assert data2vec_loss(nothing, target, mask).total.item() == pytest.approx(math.sqrt(dim), rel=1e-3)
    truth = target[:, None].expand(-1, 3, -1, -1)
    assert data2vec_loss(truth, target, mask, truth.mean(2)).total == 0


def test_visible_patches_do_not_count_and_hidden_ones_may_come_alone():
    pred, target, mask, cls = random_case()
    pred.requires_grad_()
    whole = data2vec_loss(pred, target, mask, cls).total
    whole.backward()
    assert (pred.grad[~mask] == 0).all() and (pred.grad[mask] != 0).any(1).all()
    alone = pred[mask].reshape(2, 3, 4, 5)
    torch.testing.assert_close(data2vec_loss(alone, target, mask, cls).total, whole)


def test_copies_cost_the_mean_of_single_copies_and_the_target_gets_no_gradient():
    pred, target, mask, cls = random_case(copies=4)
    target.requires_grad_()
    together = data2vec_loss(pred.requires_grad_(), target, mask, cls)
    (gradient,) = torch.autograd.grad(together.total, pred)
    single = [data2vec_loss(pred[:, [m]], target, mask[:, [m]], cls[:, [m]]).total for m in range(4)]
    torch.testing.assert_close(together.total, torch.stack(single).mean())
    torch.testing.assert_close(torch.autograd.grad(torch.stack(single).mean(), pred)[0], gradient)
    assert not contextual_targets([target]).requires_grad and target.grad is None


def test_statistics_stay_in_float32_under_autocast():
    pred, target, mask, cls = random_case()
    with torch.autocast("cpu", torch.bfloat16):
        targets = contextual_targets([layer.bfloat16() for layer in layers_of()])
        terms = data2vec_loss(pred.bfloat16(), target, mask, cls.bfloat16())
    assert targets.dtype == torch.float32 and terms.total.dtype == torch.float32
    torch.testing.assert_close(terms.total, data2vec_loss(pred, target, mask, cls).total, rtol=2e-2, atol=0)


def test_bad_input_is_refused():
    pred, target, mask, cls = random_case()
    for bad, word in (([], "at least one"), ([target[0]], "3 dimensions"), ([target, target[:1]], "one shape"),
                      ([target * float("nan")], "NaN"), ([target[:, :1]], "N >= 2")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            contextual_targets(bad)
    with pytest.raises(TypeError, match="floating"):
        contextual_targets([target.long()])
    for arguments, word in (((pred[0], target, mask), "4 dimensions"), ((pred, target[:1], mask), "pred"),
                            ((pred, target, mask & False), "empty mask"), ((pred, target, mask[:, :2]), "mask"),
                            ((pred[:, :, :3], target, mask), "hidden ones, got 3"),
                            ((pred, target, mask, cls[:, :2]), "cls_pred"), ((pred, target * torch.inf, mask), "NaN"),
                            ((pred, target, mask, cls, -1.0), "cls_weight"),
                            ((pred, target, mask, cls, 1.0, -1.0), "beta")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            data2vec_loss(*arguments)
    with pytest.raises(TypeError, match="boolean"):
        data2vec_loss(pred, target, mask.float())
