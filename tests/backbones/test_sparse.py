"""Claims about convolutions that see only what is visible.

- With nothing hidden the net is the dense one, bit for bit: outputs and running statistics, training and evaluation.
- Whatever stands in hidden pixels, infinities included, changes nothing, and no gradient reaches them.
- Hidden cells are 0 after every layer; batch norm reads visible cells only.
- It equals a slow version with masks as numbers and cells picked one by one.
- The mask is an argument: passes with different masks do not mix.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sslcore.backbones import resnet18, small_convnet
from sslcore.backbones.regnet import regnet
from sslcore.backbones.sparse import Visibility, _Put, _Take, norm_of_visible, sparse_pass

NETS = {
    "small": lambda: small_convnet(3, (4, 6, 8), strides=(2, 2, 1)),
    "grey": lambda: small_convnet(1, (4, 6)),
    "no norm": lambda: small_convnet(3, (4, 6), norm=None, slope=0.1),
    "residual": lambda: resnet18(3, width=8),
    "pooled stem": lambda: resnet18(3, cifar_stem=False, width=8),
}


def build(name: str, train: bool = True):
    torch.manual_seed(0)
    net = NETS[name]().train(train)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):  # offsets: after them hidden cells would not be 0 by themselves
            nn.init.uniform_(module.bias, -1, 1)
            nn.init.uniform_(module.running_mean, -1, 1)
    side = 2 * net.patch_size
    return net, torch.randn(4, net.in_chans, side, side)


def pixels_of(mask, net, side=2):
    return mask.view(-1, 1, side, side).repeat_interleave(net.patch_size, 2).repeat_interleave(net.patch_size, 3)


SOME = torch.tensor([[0, 1, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]]).bool()


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("name", NETS)
def test_with_nothing_hidden_it_is_the_dense_net(name, train):
    net, x = build(name, train)
    twin = copy.deepcopy(net)
    expected, got = net(x, return_layers=True), twin(x, return_layers=True, mask=torch.zeros(4, 4).bool())
    # Equal but for rounding: on some processors a convolution goes another way after the multiplication by the mask.
    near = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(got.patch_tokens, expected.patch_tokens, **near)
    torch.testing.assert_close(got.cls_token, expected.cls_token, **near)
    for a, b in zip(got.layers, expected.layers, strict=True):
        torch.testing.assert_close(a, b, **near)
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, twin.state_dict()[key], msg=lambda m, key=key: f"{key}: {m}", **near)
    for tokens in (expected, got):
        tokens.patch_tokens.square().sum().backward()
    for (key, a), b in zip(net.named_parameters(), twin.parameters(), strict=True):
        size = float(a.grad.abs().max())
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-4 * size, msg=lambda m, key=key: f"{key}: {m}")


@given(
    hidden=st.lists(st.booleans(), min_size=16, max_size=16),
    name=st.sampled_from(sorted(NETS)),
    train=st.booleans(),
    junk=st.sampled_from([0.0, 7.0, float("inf"), float("nan")]),
)
@settings(max_examples=40, deadline=None)
def test_hidden_pixels_change_nothing(hidden, name, train, junk):
    mask = torch.tensor(hidden).view(4, 4)
    net, x = build(name, train)
    if int((~mask).sum()) < 2:
        return  # a batch norm needs two cells
    changed = torch.where(pixels_of(mask, net), junk, x)
    before = copy.deepcopy(net.state_dict())
    first = net(x, mask=mask)
    net.load_state_dict(before)
    assert torch.equal(first.patch_tokens, net(changed, mask=mask).patch_tokens)
    assert not first.patch_tokens[mask].any()
    x.requires_grad_()
    net(x, mask=mask).patch_tokens.square().sum().backward()
    assert not x.grad[pixels_of(mask, net).expand_as(x)].any()
    shown = ~mask
    expected = torch.stack([row[keep].sum(0) / max(1, int(keep.sum())) for row, keep in
                            zip(first.patch_tokens, shown, strict=True)])  # fmt: skip
    torch.testing.assert_close(first.cls_token, expected)


def test_a_dense_net_on_zeroed_pixels_fills_the_holes():
    net, x = build("small")
    zeroed = torch.where(pixels_of(SOME, net), 0, x)
    assert net(zeroed).patch_tokens[SOME].abs().max() > 0.1
    dense, sparse = net(zeroed).patch_tokens[~SOME], net(x, mask=SOME).patch_tokens[~SOME]
    assert not torch.allclose(dense, sparse, atol=1e-2)  # the statistics differ, too


def slow_norm(norm, x, visible):
    """Cells one by one, with NumPy."""
    x, visible = x.detach().double().numpy(), visible.numpy()
    places = [(b, i, j) for b, i, j in np.ndindex(*visible.shape) if visible[b, i, j]]
    rows = np.array([x[b, :, i, j] for b, i, j in places])
    scaled = (rows - rows.mean(0)) / np.sqrt(rows.var(0) + norm.eps)
    out = np.zeros_like(x)
    for (b, i, j), row in zip(places, scaled, strict=True):
        out[b, :, i, j] = row * norm.weight.detach().numpy() + norm.bias.detach().numpy()
    return out, rows


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_batch_norm_reads_visible_cells_only(layout):
    torch.manual_seed(0)
    norm, x = nn.BatchNorm2d(3), torch.randn(4, 3, 4, 4).contiguous(memory_format=layout)
    nn.init.uniform_(norm.weight), nn.init.uniform_(norm.bias)
    visibility = Visibility(SOME, 4, (2, 2))
    visible = ~SOME.view(4, 2, 2).repeat_interleave(2, 1).repeat_interleave(2, 2)
    expected, rows = slow_norm(norm, x, visible)
    got = norm_of_visible(norm, x, visibility)
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(norm.running_mean.numpy(), 0.1 * rows.mean(0), rtol=1e-4)
    np.testing.assert_allclose(norm.running_var.numpy(), 0.9 + 0.1 * rows.var(0, ddof=1), rtol=1e-4)


def slow(module, x, visible):
    """The mask as numbers, resized by interpolation, multiplied in after every leaf."""
    if isinstance(module, nn.Sequential):
        for layer in module:
            x = slow(layer, x, visible)
        return x
    if type(module).__name__ == "BasicBlock":
        side = x if module.downsample is None else slow(module.downsample, x, visible)
        x = F.relu(slow(module.bn1, slow(module.conv1, x, visible), visible))
        return F.relu(slow(module.bn2, slow(module.conv2, x, visible), visible) + side)
    if isinstance(module, nn.BatchNorm2d):
        keep = F.interpolate(visible, x.shape[2:])[:, 0].bool()
        rows = x.permute(0, 2, 3, 1)[keep]
        out = torch.zeros_like(x).permute(0, 2, 3, 1)
        out[keep] = F.batch_norm(rows, None, None, module.weight, module.bias, training=True)
        return out.permute(0, 3, 1, 2)
    x = module(x)
    return x * F.interpolate(visible, x.shape[2:])


@pytest.mark.parametrize("name", NETS)
def test_it_equals_the_slow_version(name):
    net, x = build(name)
    visible = (~SOME).float().view(4, 1, 2, 2)
    with torch.no_grad():
        got, expected = net(x, mask=SOME, return_layers=True), x * F.interpolate(visible, x.shape[2:])
        for stage, layer in zip(net.stages, got.layers, strict=True):
            expected = slow(stage, expected, visible)
            torch.testing.assert_close(layer, expected.flatten(2).transpose(1, 2), rtol=1e-4, atol=1e-4)


def test_hidden_cells_are_zero_after_every_layer():
    net, x = build("small")
    visibility = Visibility(SOME, 4, (2, 2))
    x = visibility.hide(x)
    for layer in (layer for stage in net.stages for layer in stage):
        x = sparse_pass(layer, x, visibility)
        assert not x[visibility.hidden_at(tuple(x.shape[2:])).expand_as(x)].any() and x.any()
    assert (norm_of_visible(nn.BatchNorm2d(8), x, visibility) < 0).any()  # visible may be negative: not found by sign


def test_passes_with_different_masks_do_not_mix():
    net, x = build("residual", train=False)
    first, second = net(x, mask=SOME), net(x, mask=~SOME)
    assert torch.equal(first.patch_tokens, net(x, mask=SOME).patch_tokens)
    assert not first.patch_tokens[SOME].any() and not second.patch_tokens[~SOME].any()


def test_taking_and_putting_rows_are_adjoint():
    x = torch.randn(2, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    rows = torch.tensor([0, 3, 4, 11])
    assert torch.autograd.gradcheck(_Take.apply, (x, rows))
    assert torch.autograd.gradgradcheck(_Take.apply, (x, rows))
    values = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: _Put.apply(v, rows, x.shape), (values,))
    assert _Put.apply(_Take.apply(x, rows), rows, x.shape).count_nonzero() == 8


@pytest.mark.parametrize("train", [True, False])
def test_gradient_of_the_norm_by_differences(train):
    norm = nn.BatchNorm2d(3).double().train(train)
    nn.init.uniform_(norm.weight)
    visibility = Visibility(SOME, 4, (2, 2))

    def masked(x):
        return norm_of_visible(copy.deepcopy(norm), x, visibility)  # a fresh one: its running statistics move

    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.randn(4, 3, 2, 2, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()
        assert torch.autograd.gradcheck(masked, (x,))


def test_bad_input_is_refused():
    net, x = build("small")
    for mask, error, said in (
        (SOME.float(), TypeError, r"boolean mask \(True = hidden\), got torch.float32"),
        (SOME[:3], ValueError, r"expected shape \(4, 4\), got \(3, 4\)"),
        (torch.ones(4, 4).bool(), ValueError, "at least one visible cell"),
        ("all", TypeError, "torch.Tensor"),
    ):
        with pytest.raises(error, match=said):
            net(x, mask=mask)
    with pytest.raises(ValueError, match="multiples of the patch size 4, got images of \\(10, 8\\)"):
        net(torch.randn(2, 3, 10, 8), mask=torch.zeros(2, 4).bool())
    with pytest.raises(ValueError, match="Visib|no sparse form"):
        regnet(3)(torch.randn(2, 3, 16, 16), mask=torch.zeros(2, 4).bool())
    with pytest.raises(ValueError, match="sides are multiples"):
        Visibility(SOME, 4, (2, 2)).hidden_at((3, 4))
