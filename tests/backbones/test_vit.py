"""Claims about the vision transformer:

1. keeping every patch changes nothing; a dropped patch's pixels change nothing;
2. kept patches keep their own positions, whatever the order, with every kind of position;
3. a masked patch's pixels change nothing, and the mask token and its position do;
4. the causal mask leaks nothing from later tokens; any mask of the user is obeyed;
5. class token, registers and patches sit where Tokens says; without a class token the mean stands in;
6. other image sizes work, and the training size is untouched by interpolation;
7. the outputs of the MLPs come from the same pass and, added to what was there before, give the next layer.
"""

from __future__ import annotations

import pytest
import torch

from sslcore.backbones import VisionTransformer

KINDS = ("learned", "sincos", "rope", "none")


def build(**options) -> VisionTransformer:
    torch.manual_seed(0)
    net = VisionTransformer(**(dict(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2) | options))
    with torch.no_grad():  # the start of 0.02 would hide mistakes in rounding
        for parameter in net.parameters():
            parameter.normal_(std=0.2)
    return net.eval()


def images(count: int = 2, size: int = 16, channels: int = 3) -> torch.Tensor:
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))


def repaint(x: torch.Tensor, patch: int, side: int = 4) -> torch.Tensor:
    """x with other pixels inside one patch."""
    row, column = divmod(patch, x.shape[3] // side)
    changed = x.clone()
    changed[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side] += 3.0
    return changed


@pytest.mark.parametrize("kind", KINDS)
def test_keeping_every_patch_in_any_order_equals_the_full_pass(kind):
    net, x = build(pos_embed=kind, num_registers=1), images()
    full = net(x)
    order = torch.stack([torch.randperm(16, generator=torch.Generator().manual_seed(seed)) for seed in (3, 4)])
    kept = net(x, ids_keep=order)
    torch.testing.assert_close(kept.cls_token, full.cls_token, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(kept.register_tokens, full.register_tokens, rtol=1e-5, atol=1e-5)
    expected = torch.stack([full.patch_tokens[b, order[b]] for b in range(2)])
    torch.testing.assert_close(kept.patch_tokens, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_dropped_patches_cannot_change_anything(kind):
    net, x = build(pos_embed=kind), images()
    ids_keep = torch.tensor([[0, 5, 7], [15, 2, 5]])
    before, after = net(x, ids_keep=ids_keep), net(repaint(x, 9), ids_keep=ids_keep)
    assert torch.equal(before.cls_token, after.cls_token)
    assert torch.equal(before.patch_tokens, after.patch_tokens)
    assert before.patch_tokens.shape == (2, 3, 16) and before.grid == (4, 4)
    moved = net(repaint(x, 5), ids_keep=ids_keep)
    assert (moved.patch_tokens - before.patch_tokens).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["learned", "sincos", "rope"])
def test_positions_follow_the_kept_patches(kind):
    """Even patches look alike and odd ones do: only the positions can tell these selections apart."""
    net = build(pos_embed=kind, class_token=False)
    striped = images(1)[..., :4, :8].tile(1, 1, 4, 2)
    near, far, same_step = (
        net(striped, ids_keep=torch.tensor([pair])).patch_tokens for pair in ([0, 1], [0, 15], [10, 11])
    )
    assert (near - far).abs().max() > 1e-3
    if kind == "rope":  # relative: the same step elsewhere looks the same
        torch.testing.assert_close(near, same_step, rtol=1e-4, atol=1e-5)
    else:
        assert (near - same_step).abs().max() > 1e-3


def test_without_positions_the_net_is_a_set_function():
    net, x = build(pos_embed="none"), images()
    first, second = net(x, ids_keep=torch.tensor([[1, 4]] * 2)), net(x, ids_keep=torch.tensor([[4, 1]] * 2))
    torch.testing.assert_close(first.patch_tokens, second.patch_tokens.flip(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_patches_show_the_mask_token_and_nothing_of_their_pixels(kind):
    net, x = build(pos_embed=kind), images()
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 9] = True
    before = net(x, mask=mask, return_layers=True)
    assert torch.equal(before.patch_tokens, net(repaint(x, 9), mask=mask).patch_tokens)
    assert not torch.equal(before.patch_tokens, net(repaint(x, 8), mask=mask).patch_tokens)
    entered = before.layers[0][:, 1 + 9] - net.mask_token[:, 0]
    table = net.positions((4, 4))
    expected = torch.zeros(2, 16) if table is None else table[:, 9].expand(2, -1)
    torch.testing.assert_close(entered, expected)
    assert torch.equal(net(x, mask=torch.zeros_like(mask)).patch_tokens, net(x).patch_tokens)


def test_mask_and_ids_keep_work_together():
    net, x = build(), images()
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, [3, 9]] = True
    ids_keep = torch.tensor([[9, 1, 2], [1, 9, 3]])
    layers = net(x, mask=mask, ids_keep=ids_keep, return_layers=True).layers[0]
    torch.testing.assert_close(layers[0, 1], (net.mask_token + net.pos_embed[:, [9]])[0, 0])
    assert torch.equal(layers, net(repaint(x, 9), mask=mask, ids_keep=ids_keep, return_layers=True).layers[0])


@pytest.mark.parametrize("kind", KINDS)
def test_causal_mask_leaks_nothing_from_later_patches(kind):
    net, x = build(pos_embed=kind, class_token=False), images()
    before, after = (net(v, attn_mask="causal").patch_tokens for v in (x, repaint(x, 6)))
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=1e-6)
    assert (before[:, 6:] - after[:, 6:]).abs().amax(dim=(0, 2)).min() > 1e-5
    triangle = torch.ones(16, 16, dtype=torch.bool).tril()
    additive = torch.zeros(16, 16).masked_fill(~triangle, float("-inf"))
    for same in (triangle, additive, triangle.expand(2, 1, 16, 16), additive.expand(2, 2, 16, 16)):
        torch.testing.assert_close(net(x, attn_mask=same).patch_tokens, before, rtol=1e-5, atol=1e-5)


def test_attention_mask_per_image_is_obeyed():
    net, x = build(class_token=False), images()
    mask = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    mask[0, :, :, 9] = False  # nobody but patch 9 itself may look at patch 9, in the first image only
    mask[0, :, 9, 9] = True
    before, after = net(x, attn_mask=mask).patch_tokens, net(repaint(x, 9), attn_mask=mask).patch_tokens
    others = torch.arange(16) != 9
    torch.testing.assert_close(before[0, others], after[0, others], rtol=0, atol=1e-6)
    assert (before[1, others] - after[1, others]).abs().max() > 1e-4


@pytest.mark.parametrize("class_token", [True, False])
@pytest.mark.parametrize("num_registers", [0, 3])
def test_prefix_tokens_are_wired_as_described(class_token, num_registers):
    net, x = build(class_token=class_token, num_registers=num_registers), images()
    tokens = net(x, return_layers=True)
    prefix = int(class_token) + num_registers
    assert tokens.num_prefix_tokens == net.num_prefix_tokens == prefix
    assert [layer.shape for layer in tokens.layers] == [(2, prefix + 16, 16)] * 3
    normed = net.norm(tokens.layers[-1])
    torch.testing.assert_close(tokens.patch_tokens, normed[:, prefix:])
    torch.testing.assert_close(tokens.pooled, tokens.patch_tokens.mean(1))
    torch.testing.assert_close(tokens.cls_token, normed[:, 0] if class_token else normed[:, prefix:].mean(1))
    if num_registers:
        torch.testing.assert_close(tokens.register_tokens, normed[:, int(class_token) : prefix])
        torch.testing.assert_close(tokens.layers[0][:, int(class_token) : prefix], net.reg_token.expand(2, -1, -1))
        with torch.no_grad():
            net.reg_token[..., 0].add_(1.0)  # one channel: the norm would absorb a shift of all
        assert (net(x).patch_tokens - tokens.patch_tokens).abs().max() > 1e-4
    else:
        assert tokens.register_tokens is None


@pytest.mark.parametrize("kind", KINDS)
def test_other_sizes_pass_and_the_training_size_is_not_interpolated(kind):
    net = build(pos_embed=kind)
    assert net(torch.randn(1, 3, 8, 24)).grid == (2, 6)
    assert net(images(size=32)).patch_tokens.shape == (2, 64, 16)
    twin = build(pos_embed=kind, img_size=16)
    net(images(size=32))  # a pass at another size leaves nothing behind
    assert torch.equal(net(images()).patch_tokens, twin(images()).patch_tokens)


@pytest.mark.parametrize("kind", ["learned", "sincos"])
def test_tables_of_another_size_span_the_same_image(kind):
    """Position in the image, not the patch count, decides: the middle of a finer grid is the middle of the coarser."""
    net = build(pos_embed=kind)
    with torch.no_grad():
        if kind == "learned":  # a ramp over the columns
            net.pos_embed.copy_((torch.arange(16.0) % 4)[None, :, None].expand(1, 16, 16))
    fine, home = net.positions((8, 8))[0].reshape(8, 8, 16), net.positions((4, 4))[0].reshape(4, 4, 16)
    between = (fine[3, 3] + fine[3, 4] + fine[4, 3] + fine[4, 4]) / 4
    torch.testing.assert_close(between, home[1:3, 1:3].mean((0, 1)), rtol=0, atol=0.12)


def test_rotary_steps_of_another_size_are_measured_in_the_image():
    net = build(pos_embed="rope", class_token=False)
    x = images(1)
    wide = torch.zeros(1, 3, 32, 32)
    wide[..., :4, :4], wide[..., :4, 8:12] = x[..., :4, :4], x[..., :4, 4:8]
    near = net(x, ids_keep=torch.tensor([[0, 1]])).patch_tokens
    for column, same in ((2, True), (1, False)):  # two fine cells are one coarse cell
        wide[..., :4, 4 * column : 4 * column + 4] = x[..., :4, 4:8]
        far = net(wide, ids_keep=torch.tensor([[0, column]])).patch_tokens
        assert torch.allclose(near, far, rtol=1e-4, atol=1e-5) is same


def test_every_parameter_gets_a_gradient_with_and_without_a_mask():
    for mask in (None, torch.ones(2, 16, dtype=torch.bool)):
        for kind in KINDS:
            net = build(num_registers=1, init_values=0.1, pos_embed=kind)
            tokens = net(images(), mask=mask)
            (tokens.cls_token.square().sum() + tokens.patch_tokens.square().sum()).backward()
            assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_initial_weights_follow_timm():
    net = VisionTransformer(embed_dim=192, depth=2)
    weights = net.blocks[0].attn.qkv.weight
    assert 0.015 < weights.std() < 0.0205 and weights.abs().max() <= 2.0  # truncated at 2, std 0.02
    assert net.blocks[1].mlp.fc1.bias.abs().max() == 0
    assert 0.01 < net.pos_embed.std() < 0.0205


def test_drop_path_acts_in_training_only_and_keeps_the_mean():
    net, x = build(drop_path=0.5), images()
    assert torch.equal(net(x).cls_token, build()(x).cls_token)
    deep = build(drop_path=0.5, depth=3)
    assert [getattr(block.drop_path2, "probability", 0.0) for block in deep.blocks] == [0.0, 0.25, 0.5]
    net.train()
    torch.manual_seed(0)
    assert not torch.equal(net(x).cls_token, net(x).cls_token)
    drop = net.blocks[1].drop_path1
    assert drop.probability == 0.5
    kept = drop(torch.ones(4000, 2, 3))
    assert set(kept.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(kept.amin(dim=(1, 2)), kept.amax(dim=(1, 2)))  # whole samples
    assert abs(kept.mean() - 1) < 0.1


def test_autocast_stays_close_and_returns_float32_maps():
    net, x = build(num_registers=1), images()
    mask = torch.zeros(2, 16, dtype=torch.bool)
    mask[:, 3] = True
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = net(x, mask=mask, attn_mask=torch.zeros(18, 18), return_attention=True)
    full = net(x, mask=mask, return_attention=True)
    torch.testing.assert_close(low.patch_tokens.float(), full.patch_tokens, rtol=0.1, atol=0.1)
    assert low.attentions[0].dtype == torch.float32
    torch.testing.assert_close(low.attentions[0].sum(-1), torch.ones(2, 2, 18), rtol=1e-5, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_equals_cpu(kind):
    net, x, ids_keep = build(pos_embed=kind), images(), torch.tensor([[0, 5, 7], [15, 2, 5]])
    here = net(x, ids_keep=ids_keep, attn_mask="causal", return_attention=True)
    there = net.cuda()(x.cuda(), ids_keep=ids_keep.cuda(), attn_mask="causal", return_attention=True)
    torch.testing.assert_close(there.patch_tokens.cpu(), here.patch_tokens, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(there.attentions[1].cpu(), here.attentions[1], rtol=1e-3, atol=1e-3)


def test_state_dict_round_trip():
    for kind in KINDS:
        net, other = build(pos_embed=kind, num_registers=2), build(pos_embed=kind, num_registers=2)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.zero_()
        other.load_state_dict(net.state_dict())
        assert torch.equal(net(images()).patch_tokens, other(images()).patch_tokens)
    assert not any("sincos" in name or "angles" in name for name in build(pos_embed="rope").state_dict())


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (dict(pos_embed="fourier"), "known: learned, none, rope, sincos"),
        (dict(img_size=18), "multiples of patch_size 4"),
        (dict(embed_dim=15), "multiple of 2 heads"),
        (dict(embed_dim=12, pos_embed="rope"), "multiple of 4"),
        (dict(embed_dim=14, pos_embed="sincos"), "multiple of 4"),
        (dict(num_registers=-1), "num_registers"),
        (dict(drop_path=1.0), "drop_path"),
        (dict(depth=0), "depth"),
    ],
)
def test_bad_options(options, match):
    with pytest.raises(ValueError, match=match):
        build(**options)


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (dict(x=torch.zeros(1, 1, 16, 16)), ValueError, "expected 3 channels"),
        (dict(x=torch.zeros(1, 3, 18, 16)), ValueError, "multiples of patch_size 4"),
        (dict(x=torch.zeros(1, 3, 0, 16)), ValueError, "multiples of patch_size 4"),
        (dict(x=torch.zeros(0, 3, 16, 16)), ValueError, "at least one image"),
        (dict(x=torch.zeros(3, 16, 16)), ValueError, "4 dimensions"),
        (dict(x=torch.zeros(1, 3, 16, 16, dtype=torch.uint8)), TypeError, "floating-point"),
        (dict(ids_keep=torch.tensor([[0, 16]] * 2)), ValueError, r"\[0, 16\), got 0 to 16"),
        (dict(ids_keep=torch.tensor([[-1, 3]] * 2)), ValueError, "got -1 to 3"),
        (dict(ids_keep=torch.tensor([[0, 1]])), ValueError, "expected shape"),
        (dict(ids_keep=torch.zeros(2, 0, dtype=torch.long)), ValueError, "M >= 1"),
        (dict(ids_keep=torch.zeros(2, 3)), TypeError, "int64"),
        (dict(mask=torch.zeros(2, 15, dtype=torch.bool)), ValueError, r"\(2, 16\), got \(2, 15\)"),
        (dict(mask=torch.zeros(2, 16)), TypeError, "bool"),
        (dict(attn_mask=torch.ones(16, 16, dtype=torch.bool)), ValueError, r"\(17, 17\)"),
        (dict(attn_mask="triangle"), ValueError, "causal"),
        (dict(attn_mask=torch.zeros(17, 17, dtype=torch.bool)), ValueError, "empty row"),
        (dict(attn_mask=torch.ones(17, 17, dtype=torch.long)), TypeError, "True = may attend"),
        (dict(return_attention=[2]), ValueError, r"\[-2, 2\), got 2"),
    ],
)
def test_bad_inputs(call, error, match):
    call = dict(x=images()) | call
    with pytest.raises(error, match=match):
        build()(call.pop("x"), **call)


def test_activation_checkpointing_gives_the_same_gradients():
    torch.manual_seed(0)
    net = VisionTransformer(16, 4, embed_dim=24, depth=3, num_heads=2, drop_path=0.5, pos_embed="rope").train()
    images, gradients = torch.randn(4, 3, 16, 16), []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        net.zero_grad()
        torch.manual_seed(1)  # blocks dropped at random must be dropped again
        tokens = net(images, attn_mask="causal", return_layers=True, return_attention=[1])
        (tokens.patch_tokens.square().sum() + tokens.layers[1].sum() + tokens.attentions[0].square().sum()).backward()
        found = {name: weight.grad for name, weight in net.named_parameters()}
        gradients.append({name: grad.clone() for name, grad in found.items() if grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and len(gradients[0]) > 20
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_activation_checkpointing_keeps_less():
    net = VisionTransformer(16, 4, embed_dim=24, depth=6, num_heads=2).train()
    kept = []
    for enable in (False, True):
        net.set_grad_checkpointing(enable)
        sizes = {}

        def pack(tensor, sizes=sizes):
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            net(torch.randn(4, 3, 16, 16))
        kept.append(sum(sizes.values()))
    assert kept[1] < kept[0] / 3


@pytest.mark.parametrize("init_values", [None, 0.5])
def test_mlp_outputs_are_what_the_last_step_of_a_block_adds(init_values):
    net, x = build(init_values=init_values, num_registers=1), images()
    inputs = []
    for block in net.blocks:
        block.norm2.register_forward_pre_hook(lambda _, arguments: inputs.append(arguments[0]))
    tokens = net(x, return_layers=True, return_mlp=True, ids_keep=torch.tensor([[0, 5, 3], [9, 2, 1]]))
    assert len(inputs) == len(tokens.mlp_outputs) == 2 and tokens.mlp_outputs[0].shape == (2, 2 + 3, 16)
    for block, before, branch, after in zip(net.blocks, inputs, tokens.mlp_outputs, tokens.layers[1:], strict=True):
        torch.testing.assert_close(before + block.ls2(branch), after)
    assert net(x).mlp_outputs is None
