"""regnet: the widths are timm's and the published ones; blocks, strides and tokens; bad settings."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.models.regnet import generate_regnet

from sslcore.backbones import create_backbone, regnet, regnet_widths


def test_widths_of_the_largest_published_nets():
    assert regnet_widths(456, 160.83, 2.52, 27, 264) == ([528, 1056, 2904, 7392], [2, 7, 17, 1])  # RegNetY-128GF
    widths, depths = regnet_widths(640, 230.83, 2.53, 27, 373)  # RegNetY-256GF
    assert widths[-1] == 10444 and depths == [2, 7, 17, 1]


@given(
    w0=st.integers(1, 40), wa=st.floats(0.5, 80), wm=st.floats(1.5, 3.0), depth=st.integers(1, 24),
)  # fmt: skip
def test_widths_are_those_of_timm(w0, wa, wm, depth):
    blocks = generate_regnet(wa, 8 * w0, wm, depth, 8)[0]
    widths, depths = regnet_widths(8 * w0, wa, wm, depth)
    ours = [width for width, count in zip(widths, depths, strict=True) for _ in range(count)]
    # timm rounds in float32: allow the odd block that lies exactly between two widths
    assert len(ours) == depth and sum(a != b for a, b in zip(ours, sorted(blocks), strict=True)) <= 1


@pytest.mark.parametrize(("settings", "width"), [({}, 32), ({"w0": 32, "wa": 32.0}, 64), ({"se_ratio": 0.0}, 32)])
def test_small_net_gives_tokens(settings, width):
    torch.manual_seed(0)
    net = regnet(in_chans=1, **settings)
    tokens = net(torch.randn(3, 1, 20, 20), return_layers=True)
    assert net.patch_size == 8 and net.embed_dim == width
    assert tokens.patch_tokens.shape == (3, 9, width) and tokens.grid == (3, 3)
    assert [layer.shape[1] for layer in tokens.layers] == [100, 25, 9]
    tokens.cls_token.square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())
    assert any("se" in name for name, _ in net.named_parameters()) == (settings.get("se_ratio") != 0.0)


def test_groups_and_names():
    net = create_backbone("regnet", in_chans=3, w0=16, group_size=4)
    grouped = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d) and m.groups > 1]
    assert [m.groups for m in grouped] == [4, 8] and all(m.in_channels // m.groups == 4 for m in grouped)


def test_bad_settings_are_refused():
    for settings, message in (
        ({"w0": 12}, "w0: expected a multiple of 8, got 12"),
        ({"wa": -1.0}, "wa: expected"),
        ({"wm": 1.0}, "wm: expected"),
        ({"depth": 0}, "depth: expected"),
        ({"group_size": 0}, "group_size: expected"),
        ({"se_ratio": 2.0}, "se_ratio: expected"),
    ):
        with pytest.raises(ValueError, match=message):
            regnet(**settings)
