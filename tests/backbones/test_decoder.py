"""Claims about the decoder: tokens return to their places, hidden places differ by position only,
masked_only is a selection."""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import ConvDecoder, MAEDecoder


def build(**options) -> MAEDecoder:
    torch.manual_seed(0)
    return MAEDecoder(**(dict(encoder_dim=8, grid=(3, 4), patch_dim=6, embed_dim=12, depth=2, num_heads=3) | options))


def shuffled(batch: int = 3, kept: int = 5, seed: int = 0):
    """ids_keep, ids_restore and mask of a random choice, made patch by patch."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(12, generator=generator) for _ in range(batch)])
    restore = torch.zeros_like(order)
    mask = torch.ones(batch, 12, dtype=torch.bool)
    for b in range(batch):
        for place, patch in enumerate(order[b].tolist()):
            restore[b, patch] = place
            mask[b, patch] = place >= kept
    return order[:, :kept], restore, mask


def test_tokens_return_to_their_places():
    net = build(depth=0)
    ids_keep, restore, mask = shuffled()
    latent = torch.randn(3, 5, 8)
    out = net(latent, restore)
    positions = net.positions[0]
    for b in range(3):
        for patch in range(12):
            if mask[b, patch]:
                token = net.mask_token[0, 0]
            else:
                token = net.embed(latent[b, (ids_keep[b] == patch).nonzero()[0, 0]])
            torch.testing.assert_close(out[b, patch], net.predict(net.norm(token + positions[patch])))


@pytest.mark.parametrize("with_class", [False, True])
def test_masked_only_is_the_selection_by_mask(with_class):
    net = build()
    _, restore, mask = shuffled()
    latent, cls_token = torch.randn(3, 5, 8), torch.randn(3, 8) if with_class else None
    everything = net(latent, restore, cls_token)
    hidden = net(latent, restore, cls_token, masked_only=True)
    assert everything.shape == (3, 12, 6)
    torch.testing.assert_close(hidden, everything[mask].reshape(3, 7, 6), rtol=1e-5, atol=1e-5)


def test_the_order_of_visible_tokens_is_only_bookkeeping():
    net = build()
    _, restore, _ = shuffled(batch=1)
    latent, turn = torch.randn(1, 5, 8), torch.tensor([3, 0, 4, 1, 2])
    moved = restore.clone()
    for new, old in enumerate(turn.tolist()):
        moved[restore == old] = new
    torch.testing.assert_close(net(latent[:, turn], moved), net(latent, restore), rtol=1e-5, atol=1e-5)


def test_class_token_shifts_no_place():
    net = build(depth=0)
    _, restore, _ = shuffled()
    latent = torch.randn(3, 5, 8)
    torch.testing.assert_close(net(latent, restore, torch.randn(3, 8)), net(latent, restore))


def test_class_token_is_heard_and_every_parameter_learns():
    net = build()
    _, restore, _ = shuffled()
    latent = torch.randn(3, 5, 8)
    assert not torch.allclose(net(latent, restore), net(latent, restore, torch.randn(3, 8)))
    net(latent, restore, masked_only=True).square().sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


def test_number_of_patches_means_a_square_and_nothing_hidden_is_fine():
    net = build(grid=9)
    assert net.num_patches == 9
    order = torch.arange(9)[None]
    assert net(torch.randn(1, 9, 8), order).shape == (1, 9, 6)
    assert net(torch.randn(1, 9, 8), order, masked_only=True).shape == (1, 0, 6)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda n, x, r: build(grid=10), ValueError, "square number of patches"),
        (lambda n, x, r: build(embed_dim=16), ValueError, "multiple of 3 heads"),
        (lambda n, x, r: n(x[..., :7], r), ValueError, "expected 8 channels"),
        (lambda n, x, r: n(x, r[:, :11]), ValueError, r"\(3, 12\), got \(3, 11\)"),
        (lambda n, x, r: n(x, r.float()), TypeError, "int64"),
        (lambda n, x, r: n(x, r.clamp(max=8)), ValueError, "permutation"),
        (lambda n, x, r: n(torch.randn(3, 13, 8), r), ValueError, "at most 12"),
        (lambda n, x, r: n(x, r, torch.randn(3, 1, 8)), ValueError, "cls_token"),
        (lambda n, x, r: n(x[0], r), ValueError, "3 dimensions"),
    ],
)
def test_bad_inputs(call, error, match):
    with pytest.raises(error, match=match):
        call(build(), torch.randn(3, 5, 8), shuffled()[1])


def spread(**options) -> ConvDecoder:
    torch.manual_seed(0)
    return ConvDecoder(**(dict(embed_dim=8, out_dim=6, depth=2, groups=2) | options))


def test_convolutions_equal_a_plain_stack_of_layers():
    net = spread()
    ids_keep, restore, mask = shuffled()
    latent, holes = torch.randn(3, 5, 8), torch.randn(3, 7, 8)
    x, hidden = torch.zeros(3, 12, 8), restore.argsort(1)[:, 5:]
    for b in range(3):
        for k, patch in enumerate(ids_keep[b].tolist()):
            x[b, patch] = latent[b, k]
        for k, patch in enumerate(hidden[b].tolist()):
            x[b, patch] = holes[b, k]
    x = x.mT.reshape(3, 8, 3, 4)
    for layer in net.layers:
        halves = [torch.nn.functional.conv2d(x[:, g : g + 4], layer.weight[g : g + 4], layer.bias[g : g + 4], padding=1)
                  for g in (0, 4)]  # fmt: skip
        mixed = torch.cat(halves, 1)
        mixed = (mixed - mixed.mean(1, keepdim=True)) / (mixed.var(1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        x = x + torch.nn.functional.gelu(mixed)
    expected = x.flatten(2).mT @ net.predict.weight.T + net.predict.bias
    got = net(latent, restore, (3, 4), holes)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    alone = net(latent, restore, (3, 4), holes, masked_only=True)
    torch.testing.assert_close(alone, got[mask].reshape(3, 7, 6), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("depth, kernel_size", [(1, 3), (2, 3), (1, 5)])
def test_convolutions_see_their_neighbourhood_and_no_more(depth, kernel_size):
    net = spread(depth=depth, kernel_size=kernel_size)
    latent = torch.randn(1, 49, 8, requires_grad=True)
    net(latent, torch.arange(49)[None], (7, 7), torch.zeros(1, 0, 8))[0, 24].sum().backward()
    seen = latent.grad[0].abs().sum(1).view(7, 7) > 0
    reach = depth * (kernel_size // 2)
    expected = torch.zeros(7, 7, dtype=torch.bool)
    expected[3 - reach : 4 + reach, 3 - reach : 4 + reach] = True
    assert torch.equal(seen, expected)


def test_convolutions_refuse_what_does_not_fit():
    for wrong in ({"groups": 3}, {"kernel_size": 2}, {"depth": 0}, {"out_dim": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong)) if "groups" not in wrong else "embed_dim"):
            spread(**wrong)
    net, (_, restore, _) = spread(), shuffled()
    latent, holes = torch.randn(3, 5, 8), torch.randn(3, 7, 8)
    for arguments, word in (((latent[..., :4], restore, (3, 4), holes), "8 channels"),
                            ((latent, restore, (4, 4), holes), "ids_restore"),
                            ((latent, restore, (3, 4), holes[:, 1:]), "holes"),
                            ((latent[0], restore, (3, 4), holes), "3 dimensions")):  # fmt: skip
        with pytest.raises(ValueError, match=word):
            net(*arguments)
    with pytest.raises(TypeError, match="int64"):
        net(latent, restore.float(), (3, 4), holes)
