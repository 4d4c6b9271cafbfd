"""The predictor: its layers written out, blind to what stood in the holes, no further-sighted than it says."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import ConvPredictor
from sslcore.probes import token_influence


def some(batch=2, cells=20, seed=0):
    mask = torch.rand(batch, cells, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[:, 0] = True
    return torch.randn(batch, cells, 6), mask


def test_layers_written_out():
    predictor, (tokens, mask) = ConvPredictor(6, depth=2), some()
    x = tokens.clone()
    x[mask] = predictor.mask_token
    x = x.view(2, 4, 5, 6).permute(0, 3, 1, 2)
    for depth in range(2):
        wide, deep = (predictor.layers[4 * depth + k].weight for k in (0, 1))
        padded = F.pad(x, (1, 1, 1, 1))
        spread = sum(padded[:, :, i : i + 4, j : j + 5] * wide[:, 0, i, j].view(1, -1, 1, 1)
                     for i in range(3) for j in range(3))  # fmt: skip
        mixed = torch.einsum("oc,bchw->bohw", deep[:, :, 0, 0], spread)
        mean, var = mixed.mean((0, 2, 3), keepdim=True), mixed.var((0, 2, 3), unbiased=False, keepdim=True)
        x = ((mixed - mean) / (var + 1e-5).sqrt()).clamp(min=0)
    got = predictor(tokens, mask, (4, 5))
    torch.testing.assert_close(got, x.permute(0, 2, 3, 1).flatten(1, 2), rtol=1e-4, atol=1e-4)
    got.square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in predictor.parameters())


def test_what_stood_in_the_holes_is_never_read():
    predictor, (tokens, mask) = ConvPredictor(6), some()
    other = torch.where(mask[..., None], float("nan"), tokens)
    assert torch.equal(predictor(tokens, mask, (4, 5)), predictor(other, mask, (4, 5)))


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_it_sees_depth_cells_far(depth):
    torch.manual_seed(0)
    predictor, (tokens, _) = ConvPredictor(6, depth).double().eval(), some(3, 81)
    for norm in predictor.layers[2::4]:
        norm.bias.data.fill_(5.0)  # no ReLU shuts
    mask = torch.zeros(3, 81).bool()
    mask[:, 80] = True
    influence = token_influence(lambda x: predictor(x, mask, (9, 9)), tokens.double()) > 1e-9
    place = torch.arange(81)
    far = (place[:, None] // 9 - place // 9).abs().maximum((place[:, None] % 9 - place % 9).abs())
    assert torch.equal(influence, (far <= depth) & ~mask[:1])


def test_bad_input_is_refused():
    predictor, (tokens, mask) = ConvPredictor(6), some()
    for call, error, said in (
        (lambda: predictor(tokens, mask, (5, 5)), ValueError, r"tokens: expected \(B, 25, 6\)"),
        (lambda: predictor(tokens[..., :5], mask, (4, 5)), ValueError, "tokens: expected"),
        (lambda: predictor(tokens.long(), mask, (4, 5)), TypeError, "floating"),
        (lambda: predictor(tokens, mask.float(), (4, 5)), TypeError, "boolean"),
        (lambda: predictor(tokens, mask & False, (4, 5)), ValueError, "at least one True"),
        (lambda: ConvPredictor(0), ValueError, "embed_dim"),
        (lambda: ConvPredictor(4, depth=0), ValueError, "depth"),
        (lambda: ConvPredictor(4, kernel_size=2), ValueError, "odd"),
    ):
        with pytest.raises(error, match=said):
            call()
