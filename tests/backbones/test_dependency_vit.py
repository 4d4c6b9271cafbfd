"""The dependency transformer: messages shrink, pruning counts are right, and the control is the ordinary ViT."""

import pytest
import torch

from sslcore.backbones import DependencyViT, Lite, VisionTransformer, create_backbone
from sslcore.methods import DINO, MAE
from sslcore.probes import attention_maps, dino_jaccard, extract, untrained_copy
from sslcore.training.cost import pruned_operations, vit_work

SHAPE = dict(img_size=16, patch_size=4, embed_dim=12, depth=3, num_heads=3)


def _net(seed=0, **settings):
    torch.manual_seed(seed)
    return DependencyViT(**{**SHAPE, **settings}).eval()


def _shaken(net):
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return net


@pytest.fixture
def images():
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("positions", ["learned", "sincos", "rope"])
def test_without_reversal_it_is_the_ordinary_transformer(images, positions):
    settings = {"pos_embed": positions, "init_values": 0.3, "drop_path": 0.2} | {"embed_dim": 24, "num_heads": 3}
    net = _shaken(_net(reverse=False, **settings))
    plain = VisionTransformer(**{**SHAPE, **settings}, class_token=False).eval()
    plain.load_state_dict(net.state_dict())
    got, expected = (n(images, return_attention=True, return_layers=True) for n in (net, plain))
    for name in ("cls_token", "patch_tokens"):
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=1e-4, atol=1e-5)
    for name in ("layers", "attentions"):
        for one, other in zip(getattr(got, name), getattr(expected, name), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_messages_shrink_and_arrive(images):
    tokens = _shaken(_net())(images, return_attention=True)
    assert len(tokens.messages) == len(tokens.dependencies) == 3
    for before, after in zip(tokens.messages, tokens.messages[1:], strict=False):
        assert bool((after < before).all()) and bool((after > 0).all())
    for message, dependency in zip(tokens.messages, tokens.dependencies, strict=True):
        torch.testing.assert_close(dependency.sum(1), message)
    weights = tokens.messages[-1] / tokens.messages[-1].sum(1, keepdim=True)
    torch.testing.assert_close(tokens.cls_token, (weights[..., None] * tokens.patch_tokens).sum(1))


def test_pruned_counts():
    assert Lite((2, 5, 8, 11)).lengths(196, 12)[-1] == 69
    assert sorted(set(Lite((2, 5, 8, 11)).lengths(196, 12)), reverse=True) == [196, 164, 132, 100, 69]
    assert Lite((0,), 0.5).lengths(64, 3) == [64, 32, 32, 32]
    assert Lite((2,), 0.5).lengths(64, 3) == [64, 64, 64, 32]
    assert Lite(()).lengths(7, 2) == [7, 7, 7]
    assert Lite((0,), 0.99).lengths(4, 1) == [4, 1]


@pytest.mark.parametrize("positions", ["sincos", "rope"])
@pytest.mark.parametrize("by", ["received", "message", "random"])
def test_pruning_keeps_the_right_tokens(images, by, positions):
    net = _shaken(_net(pos_embed=positions, embed_dim=24))
    whole, lite = net(images, return_attention=True, return_layers=True), Lite((0, 1), 0.25, by)
    pruned = net(images, return_attention=True, return_layers=True, lite=lite)
    assert [layer.shape[1] for layer in pruned.layers] == [16, 12, 8, 8] == lite.lengths(16, 3)
    assert pruned.kept.shape == (2, 8) and bool((pruned.kept.diff(dim=1) > 0).all())
    torch.testing.assert_close(pruned.dependencies[0], whole.dependencies[0])
    if by != "random":
        score = whole.dependencies[0].sum(2) if by == "received" else whole.messages[0]
        stay = score.topk(12, dim=1).indices.sort(1).values
        torch.testing.assert_close(pruned.layers[1], whole.layers[1].gather(1, stay[..., None].expand(-1, -1, 24)))
        left = (pruned.kept[:, :, None] == stay[:, None]).any(-1)
        assert bool(left.all())
    torch.testing.assert_close(pruned.dependencies[2].sum(1), pruned.messages[2])


def test_pruning_nothing_changes_nothing(images):
    net = _shaken(_net(pos_embed="rope", embed_dim=24))
    for lite in (Lite(()), Lite((0, 2), 0.0)):
        torch.testing.assert_close(net(images, lite=lite).patch_tokens, net(images).patch_tokens)
        assert torch.equal(net(images, lite=lite).kept, torch.arange(16).expand(2, -1))


def test_pruning_spends_less():
    net, lite = _net(selector=False, controller=False), Lite((0, 1), 0.25)
    whole = pruned_operations(net, 16, [16, 16, 16])
    assert whole == vit_work(net, 16).forward
    assert pruned_operations(net, 16, lite.lengths(16, 3)[:-1]) < whole
    extra = pruned_operations(_net(), 16, [16, 16, 16]) - whole
    assert extra == 3 * 16 * 2 * (12 * 3 + 12 * 6 + 6)
    with pytest.raises(ValueError, match="one a block"):
        pruned_operations(net, 16, [16, 16])


def test_checkpointing_gives_the_same_gradients(images):
    def gradients(again):
        net = _shaken(_net()).train()
        net.set_grad_checkpointing(again)
        net(images).cls_token.square().sum().backward()
        return [parameter.grad for parameter in net.parameters()]

    torch.manual_seed(0)
    one = gradients(False)
    torch.manual_seed(0)
    for left, right in zip(one, gradients(True), strict=True):
        torch.testing.assert_close(left, right)


def test_every_parameter_learns(images):
    net = _shaken(_net()).train()
    net(images).cls_token.square().sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_fresh_weights_open_the_gates(images):
    net = untrained_copy(_shaken(_net()))
    assert bool((net(images).messages[-1] > 0.8).all())


def test_the_probes_and_methods_of_the_course_take_it(images):
    net = create_backbone("dependency_vit", **SHAPE)
    assert attention_maps(net, images).shape == (2, 3, 4, 4)
    assert extract(net, images, pool="tokens", layers="all").shape == (4, 2, 16, 12)
    masks = torch.ones(2, 16, 16, dtype=torch.uint8)
    assert 0 <= dino_jaccard(net, images, masks).best_head <= 1
    batch, generator = {"images": torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8)}, torch.Generator()
    for method in (
        MAE(net, decoder_dim=12, decoder_depth=1),
        DINO(net, out_dim=16, hidden_dim=16, bottleneck_dim=8, local_crops=1),
    ):
        loss = method.loss(method.views(batch, generator))
        getattr(loss, "total", loss).backward()


def test_received_mass_is_what_the_maps_show(images):
    """Without a class token the course's maps average over the queries, here the senders: received mass over N."""
    net = _shaken(_net(num_heads=1, controller=False))
    tokens = net(images, return_attention=True)
    maps = attention_maps(net, images)[:, 0].flatten(1)
    torch.testing.assert_close(maps * 16, tokens.dependencies[-1].sum(2))


def test_bad_input(images):
    with pytest.raises(ValueError, match="node of the tree"):
        DependencyViT(**SHAPE, class_token=True)
    with pytest.raises(ValueError, match="node of the tree"):
        DependencyViT(**SHAPE, num_registers=2)
    with pytest.raises(ValueError, match="unknown pruning rule"):
        Lite((0,), by="size")
    with pytest.raises(ValueError, match="leave no token"):
        Lite((0, 1), 0.5)
    with pytest.raises(ValueError, match="rising"):
        Lite((1, 0))
    net = _net()
    with pytest.raises(ValueError, match="below 3"):
        net(images, lite=Lite((3,)))
    with pytest.raises(ValueError, match="not together"):
        net(images, lite=Lite((0,)), attn_mask="causal")
    with pytest.raises(ValueError, match="return_attention"):
        net(images, return_attention=[5])
