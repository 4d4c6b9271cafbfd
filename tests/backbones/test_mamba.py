"""Claims about the vision Mamba.

- The block equals a NumPy transcription that goes token by token and channel by channel, and its mixer mambapy's block
  with the same weights, parallel scan and sequential, values and gradients.
- One direction is causal in its order of reading, exactly; four directions see everything everywhere, and turning the
  grid by half a turn or swapping its axes turns and swaps what comes out.
- Tokens come back in raster order; kept patches in the order asked for. The fine-tuning copy starts as it should.
- The matrices shown are the scan's; weights start as Mamba's do; bad input is refused.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mambapy.mamba import MambaBlock as mambapy_block
from mambapy.mamba import MambaConfig

from sslcore.backbones import (
    MambaBlock,
    VisionMamba,
    cluster_order,
    create_backbone,
    four_directions,
    scan_matrix,
    small_convnet,
)
from sslcore.backbones.mamba import four_orders
from sslcore.backbones.mamba_block import DirectedScan, MambaMixer
from sslcore.objectives import unpatchify
from sslcore.probes import binding_report, token_influence, untrained_copy


def small(seed=0, **settings):
    torch.manual_seed(seed)
    usual = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 2, "state_dim": 3}
    return VisionMamba(**{**usual, **settings}).eval()


def numpy_block(block, x):
    """The block with scalars and small vectors in float64, from the equations; x (L, D)."""
    w = {name: value.detach().double().numpy() for name, value in block.named_parameters()}
    L, D = x.shape

    def norm(v, name):
        centred = v - v.mean()
        return centred / np.sqrt((centred**2).mean() + 1e-6) * w[name + ".weight"] + w[name + ".bias"]

    def silu(v):
        return v / (1 + np.exp(-v))

    p = "mixer.scans.0."
    rank, N = w[p + "dt_proj.weight"].shape[1], len(w[p + "A_log"]) // D
    A = -np.exp(w[p + "A_log"].reshape(D, N))
    both = np.stack([w["mixer.in_proj.weight"] @ norm(v, "norm1") for v in x])
    value, gate = both[:, :D], both[:, D:]
    h, out = np.zeros((D, N)), []
    for t in range(L):
        u = np.zeros(D)
        for back in range(w[p + "conv.weight"].shape[2]):  # the last weight meets the present token
            if t - back >= 0:
                u += w[p + "conv.weight"][:, 0, -1 - back] * value[t - back]
        u = silu(u + w[p + "conv.bias"])
        mixed = w[p + "x_proj.weight"] @ u
        step = np.log1p(np.exp(w[p + "dt_proj.weight"] @ mixed[:rank] + w[p + "dt_proj.bias"]))
        B, C = mixed[rank : rank + N], mixed[rank + N :]
        y = np.zeros(D)
        for d in range(D):
            for n in range(N):
                h[d, n] = np.exp(step[d] * A[d, n]) * h[d, n] + step[d] * B[n] * u[d]
                y[d] += C[n] * h[d, n]
            y[d] += w[p + "D"][d] * u[d]
        r = x[t] + w["mixer.out_proj.weight"] @ (y * silu(gate[t]))
        hidden = w["mlp.fc1.weight"] @ norm(r, "norm2") + w["mlp.fc1.bias"]
        half = len(hidden) // 2
        out.append(r + w["mlp.fc2.weight"] @ (silu(hidden[:half]) * hidden[half:]) + w["mlp.fc2.bias"])
    return torch.from_numpy(np.stack(out))


@pytest.mark.parametrize(("dim", "state_dim", "conv_width", "length"), [(5, 3, 4, 9), (18, 16, 4, 7), (4, 1, 2, 3)])
def test_block_equals_numpy(dim, state_dim, conv_width, length):
    torch.manual_seed(1)
    block, x = MambaBlock(dim, state_dim, conv_width).double(), torch.randn(2, length, dim).double()
    for weight in block.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    for row, got in zip(x, block(x).detach(), strict=True):
        torch.testing.assert_close(got, numpy_block(block, row.numpy()))
    assert block.mlp.fc2.in_features == int(8 * dim / 3)


@pytest.mark.parametrize("parallel", [False, True])
@pytest.mark.parametrize(("dim", "state_dim", "conv_width", "length"), [(24, 5, 4, 13), (16, 16, 2, 32), (40, 1, 3, 1)])
def test_mixer_equals_mambapys_block(parallel, dim, state_dim, conv_width, length):
    torch.manual_seed(1)
    ours = MambaMixer(dim, state_dim, conv_width)
    (scan,) = ours.scans
    config = MambaConfig(dim, 1, scan.dt_rank, state_dim, 1, d_conv=conv_width, pscan=parallel)
    theirs = mambapy_block(config)
    pairs = {"in_proj": ours.in_proj, "conv1d": scan.conv, "x_proj": scan.x_proj, "dt_proj": scan.dt_proj,
             "out_proj": ours.out_proj}  # fmt: skip
    for name, layer in pairs.items():
        getattr(theirs, name).load_state_dict(layer.state_dict())
    theirs.A_log.data.copy_(scan.A_log.view(dim, state_dim))
    theirs.D.data.copy_(scan.D)
    x, other = torch.randn(2, length, dim, requires_grad=True), torch.randn(2, length, dim)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    found, expected = (torch.autograd.grad((net(x) * other).sum(), [x, *net.parameters()]) for net in (ours, theirs))
    mine = dict(zip([name for name, _ in ours.named_parameters()], found[1:], strict=True))
    their = dict(zip([name for name, _ in theirs.named_parameters()], expected[1:], strict=True))
    torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-6)
    for name in ("in_proj.weight", "out_proj.weight"):
        torch.testing.assert_close(mine[name], their[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine["scans.0.A_log"].view(dim, -1), their["A_log"], rtol=1e-4, atol=1e-5)
    assert len(mine) == len(their)


@pytest.mark.parametrize("cluster", [1, 2, 4])
def test_one_direction_is_causal_in_its_order(cluster):
    net, patches = small(cluster=cluster).double(), torch.randn(3, 16, 48).double()
    order = cluster_order((4, 4), cluster)

    def said(rows):
        return net(unpatchify(rows, 4, (4, 4), 3)).patch_tokens

    seen = token_influence(said, patches)[order][:, order]
    assert torch.equal(seen > 1e-13, torch.ones(16, 16).bool().tril())


def test_four_directions_see_everything():
    net, patches = small(directions=4).double(), torch.randn(3, 16, 48).double()
    seen = token_influence(lambda rows: net(unpatchify(rows, 4, (4, 4), 3)).patch_tokens, patches)
    assert bool((seen > 1e-13).all())


def test_cluster_order():
    assert cluster_order((4, 4), 1).tolist() == list(range(16))
    assert cluster_order((4, 4), 2).tolist() == [0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15]
    assert cluster_order((4, 6), 2)[:8].tolist() == [0, 1, 6, 7, 2, 3, 8, 9]
    assert sorted(cluster_order((6, 4), 2).tolist()) == list(range(24))
    with pytest.raises(ValueError, match="expected a divisor of both sides"):
        cluster_order((4, 6), 4)


def test_four_orders_and_symmetry():
    assert [order[:2].tolist() for order in four_orders((2, 3))] == [[0, 1], [5, 4], [0, 3], [5, 2]]
    torch.manual_seed(0)
    mixer, x = MambaMixer(6, 3, directions=4), torch.randn(2, 4, 4, 6)
    mixer.scans = torch.nn.ModuleList([mixer.scans[0]] * 4)

    def mixed(grid):
        return mixer(grid.flatten(1, 2), four_orders((4, 4))).view_as(grid)

    torch.testing.assert_close(mixed(x.flip(1, 2)).flip(1, 2), mixed(x))
    torch.testing.assert_close(mixed(x.transpose(1, 2).contiguous()).transpose(1, 2), mixed(x))


def test_fine_tuning_copy():
    net = small(cluster=2)
    wide = four_directions(net)
    assert wide.directions == 4 and net.directions == 1 and wide.cluster == 1
    one, four = (sum(weight.numel() for weight in each.parameters()) for each in (net, wide))
    scan = sum(weight.numel() for weight in net.blocks[0].mixer.scans[0].parameters())
    assert four == one + 3 * 2 * scan
    for block, wide_block in zip(net.blocks, wide.blocks, strict=True):
        for each in wide_block.mixer.scans:
            for name, weight in block.mixer.scans[0].named_parameters():
                assert torch.equal(weight, each.get_parameter(name)) and weight is not each.get_parameter(name)
    mixer, wide_mixer, x = net.blocks[0].mixer, wide.blocks[0].mixer, torch.randn(2, 16, 12)
    # The projections are linear, so the copy gives the mean of four readings by the network it comes from.
    readings = [mixer(x, [order]) for order in four_orders((4, 4))]
    torch.testing.assert_close(wide_mixer(x, four_orders((4, 4))), torch.stack(readings).mean(0))
    with pytest.raises(ValueError, match="of one direction"):
        four_directions(wide)
    with pytest.raises(ValueError, match="of one direction"):
        four_directions(small_convnet(3))


def test_tokens():
    net, images = small(), torch.randn(2, 3, 16, 16)
    tokens = net(images, return_layers=True)
    assert tokens.grid == (4, 4) and tokens.num_prefix_tokens == 0 and len(tokens.layers) == 3
    torch.testing.assert_close(tokens.cls_token, tokens.patch_tokens.mean(1))
    torch.testing.assert_close(net.norm(tokens.layers[-1]), tokens.patch_tokens)
    cells = net.patch_embed["proj"](images).flatten(2).transpose(1, 2) + net.positions
    torch.testing.assert_close(tokens.layers[0], cells)
    assert net(images).layers is None
    assert net(torch.randn(1, 3, 8, 24)).grid == (2, 6)


def test_kept_patches_in_the_order_asked_for():
    net, images = small(), torch.randn(2, 3, 16, 16)
    order = torch.randperm(16)
    kept = net(images, ids_keep=order, return_layers=True)
    assert torch.equal(kept.layers[0], net(images, return_layers=True).layers[0][:, order])
    ids = torch.stack([order, order.flip(0)])
    assert torch.equal(net(images, ids_keep=ids).patch_tokens[0], kept.patch_tokens[0])
    # The first eight do not depend on the rest; and reading by clusters is reading in that order.
    torch.testing.assert_close(net(images, ids_keep=order[:8]).patch_tokens, kept.patch_tokens[:, :8])
    clustered, order = small(cluster=2), cluster_order((4, 4), 2)
    torch.testing.assert_close(clustered(images).patch_tokens[:, order], clustered(images, ids_keep=order).patch_tokens)


@pytest.mark.parametrize("settings", [{}, {"cluster": 2}, {"directions": 4}])
def test_hidden_attention_is_what_the_block_multiplies_by(settings):
    net, images = small(**settings), torch.randn(2, 3, 16, 16)
    block, entering = net.blocks[-1], net(images, return_layers=True).layers[-2]
    orders = {1: [cluster_order((4, 4), net.cluster)], 4: four_orders((4, 4))}[net.directions]
    value, gate = block.mixer.in_proj(block.norm1(entering)).chunk(2, -1)
    matrices, outputs = [], []
    for scan, order in zip(block.mixer.scans, orders, strict=True):
        inner, *coefficients = scan.coefficients(value[:, order])
        matrix, back = scan_matrix(*coefficients), order.argsort()
        outputs.append((torch.einsum("bdts,bsd->btd", matrix, inner) + scan.D * inner)[:, back])
        matrices.append(matrix[:, :, back][:, :, :, back])
    torch.testing.assert_close(net.hidden_attention(images), torch.stack(matrices).mean(0))
    mixed = block.mixer.out_proj(torch.stack(outputs).mean(0) * F.silu(gate))
    torch.testing.assert_close(mixed, block.mixer(block.norm1(entering), orders), rtol=1e-4, atol=1e-6)
    seen = net.hidden_attention(images).abs().amax((0, 1)) > 0
    order = orders[0]
    expected = torch.ones(16, 16).bool() if net.directions == 4 else torch.ones(16, 16).bool().tril()
    assert torch.equal(seen[order][:, order], expected)
    with pytest.raises(ValueError, match="layer: expected one of 2 layers"):
        net.hidden_attention(images, 2)


def test_start_of_the_weights():
    torch.manual_seed(0)
    scan = DirectedScan(400, 16)
    step = F.softplus(scan.dt_proj.bias.detach())
    assert 1e-3 <= float(step.min()) and float(step.max()) <= 0.1 + 1e-6
    assert abs(float(step.log10().mean()) + 2) < 0.1  # log-uniform: the middle is 0.01
    torch.testing.assert_close(-scan.A_log.view(400, 16)[7].exp(), -torch.arange(1.0, 17))
    assert bool((scan.D == 1).all()) and scan.A_log.ndim == scan.D.ndim == 1  # no weight decay on either
    net = small()
    fresh = untrained_copy(net, seed=5)
    mixer = fresh.blocks[0].mixer
    assert not torch.equal(mixer.in_proj.weight, net.blocks[0].mixer.in_proj.weight)
    assert float(F.softplus(mixer.scans[0].dt_proj.bias.detach()).max()) <= 0.1 + 1e-6


def test_course_interface():
    net = create_backbone("mamba", img_size=64, patch_size=8, embed_dim=12, depth=1, state_dim=2, cluster=2)
    from sslcore.data import load

    scenes = [load("twins", split, num=12) for split in ("train", "val", "test")]
    report = binding_report(net, *scenes, controls=False, untrained=False, epochs=1)
    assert sorted(report.layers) == [0, 1]


def test_autocast():
    net, images = small(), torch.randn(2, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = net(images).patch_tokens
    torch.testing.assert_close(half.float(), net(images).patch_tokens, rtol=0.1, atol=0.1)


def test_bad_input_is_refused():
    for settings, said in (({"img_size": 15}, "img_size: expected multiples of patch_size 4"),
                           ({"directions": 2}, "directions: expected 1 or 4, got 2"),
                           ({"cluster": 3}, "cluster: expected a divisor"), ({"depth": 0}, "depth"),
                           ({"state_dim": 0}, "state_dim"), ({"embed_dim": 10}, "multiple of 4")):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            small(**settings)
    net, images = small(), torch.randn(2, 3, 16, 16)
    with pytest.raises(ValueError, match="x: expected 4 dimensions"):
        net(images[0])
    with pytest.raises(ValueError, match=r"expected \(B >= 1, 3, H, W\)"):
        net(images[:, :1])
    with pytest.raises(TypeError, match="floating-point"):
        net(images.long())
    with pytest.raises(ValueError, match="VisionMamba has no softmax attention"):
        net(images, return_attention=True)
    with pytest.raises(TypeError, match="ids_keep: expected int64"):
        net(images, ids_keep=torch.arange(3).int())
    with pytest.raises(ValueError, match=r"ids_keep: expected \[0, 16\), got 0 to 16"):
        net(images, ids_keep=torch.arange(17))
    with pytest.raises(ValueError, match=r"ids_keep: expected shape \(2, M >= 1\)"):
        net(images, ids_keep=torch.arange(3)[None].repeat(3, 1))
    with pytest.raises(ValueError, match="four directions reads whole grids only"):
        small(directions=4)(images, ids_keep=torch.arange(4))
