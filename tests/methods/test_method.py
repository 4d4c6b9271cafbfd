"""What every method must do, on both kinds of network.

Claims: five steps train the backbone with a finite loss; frozen copies get no gradient but follow; the state dict
carries everything that the next step depends on; an evaluated loss leaves no trace; views depend on the seed alone.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from sslcore.backbones import VisionTransformer, small_convnet
from sslcore.methods import METHODS, Method, SimCLR, create_method
from sslcore.methods.method import teacher_of, two_views
from sslcore.training import fit
from sslcore.training.batches import map_tensors
from sslcore.training.history import named_terms
from sslcore.views import ViewPolicy
from tests.methods.small_methods import small_batch, small_method, small_set


def draw(method: Method, seed: int):
    return method.views(small_batch(), torch.Generator().manual_seed(seed))


def step(method: Method, seed: int, progress: float) -> Tensor:
    """One step of plain gradient descent: an optimiser without state of its own."""
    loss = named_terms(method(draw(method, seed)))["total"]
    method.zero_grad()
    loss.backward()
    with torch.no_grad():
        for weight in method.parameters():
            if weight.grad is not None:
                weight.sub_(0.1 * weight.grad)
    method.after_step(progress)
    return loss.detach()


def snapshot(method: Method) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def test_five_steps_train_the_backbone(method: Method):
    before = snapshot(method.backbone)
    history = fit(method, small_set(), steps=5, batch_size=8, lr=1e-2, device="cpu")
    assert len(history.loss) == 5 and all(torch.isfinite(torch.tensor(history.loss)))
    # A mask token is not read by methods that hide nothing; a first layer always is.
    first = next(name for name in before if "proj.weight" in name or name.endswith("0.weight"))
    assert not torch.equal(before[first], method.backbone.state_dict()[first])


def test_frozen_copies_get_no_gradient_and_follow(method: Method):
    frozen = {name: weight.clone() for name, weight in method.named_parameters() if name.startswith("teacher")}
    assert bool(frozen) == (type(method).__name__ in ("MoCo", "BYOL", "CNNJEPA", "Data2Vec2", "DINO", "LOOK", "Mugs"))
    step(method, 0, 0.1), step(method, 1, 0.2)
    moved = 0
    for name, before in frozen.items():
        weight = method.get_parameter(name)
        assert not weight.requires_grad and weight.grad is None
        moved += not torch.equal(before, weight)
    assert moved > 0 or not frozen


def test_state_dict_carries_the_whole_run(method: Method):
    for number in range(3):
        step(method, number, 0.1 * (number + 1))
    name = next(key for key, kind in METHODS.items() if kind is type(method))
    other = small_method(name, "vit" if isinstance(method.backbone, VisionTransformer) else "convnet", seed=99)
    other.load_state_dict(method.state_dict())
    for number in range(3, 5):
        first, second = (step(each, number, 0.1 * (number + 1)) for each in (method, other))
        assert torch.equal(first, second)
    for key, value in method.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_evaluated_loss_leaves_no_trace(method: Method):
    method.eval()
    before = snapshot(method)
    with torch.no_grad():
        first = named_terms(method(draw(method, 0)))["total"]
        second = named_terms(method(draw(method, 0)))["total"]
    assert torch.equal(first, second)
    assert all(torch.equal(before[name], value) for name, value in method.state_dict().items())


def test_views_follow_the_generator(method: Method):
    parts: list[list[Tensor]] = []
    for seed in (0, 0, 1):
        parts.append([])
        map_tensors(draw(method, seed), parts[-1].append)
    assert all(torch.equal(a, b) for a, b in zip(parts[0], parts[1], strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(parts[0], parts[2], strict=True))
    assert all(len(part) == 8 for part in parts[0])


def test_hyperparameters_are_printed(method: Method):
    plain = {name for name in vars(method) if not name.startswith("_")} - {"training"}
    assert plain and all(f"{name}=" in method.extra_repr() for name in plain)


def test_pool_chooses_the_descriptor():
    images = torch.randn(2, 3, 16, 16)
    net = VisionTransformer(16, 4, embed_dim=12, depth=1)
    tokens = net(images)
    for pool, expected in (("auto", tokens.cls_token), ("cls", tokens.cls_token), ("mean", tokens.pooled)):
        assert torch.equal(SimCLR(net, pool=pool).features(images), expected)
    conv = small_convnet(3, (4, 8)).eval()
    torch.testing.assert_close(SimCLR(conv).features(images), conv(images).pooled)


def test_two_views_take_one_policy_or_a_pair():
    method = small_method("simclr")
    left = ViewPolicy(8, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, grayscale=0.0)
    right = ViewPolicy(12, scale=(1.0, 1.0), ratio=(1.0, 1.0), flip=0.0, jitter_probability=0.0, grayscale=0.0)
    first, second = two_views(method, small_batch(), None, (left, right), None)
    assert first.shape[-1] == 8 and second.shape[-1] == 12
    first, second = two_views(method, small_batch(), None, left, None)
    assert torch.equal(first, second)


def test_img_size_sets_the_side_of_the_views():
    assert all(view.shape[-1] == 8 for view in draw(small_method("simclr", img_size=8), 0))


def test_teacher_never_drops_a_branch():
    net = VisionTransformer(16, 4, embed_dim=12, depth=3, drop_path=0.9)
    images = torch.randn(4, 3, 16, 16)
    assert not torch.equal(net(images).cls_token, net(images).cls_token)
    teacher = teacher_of(net)
    assert torch.equal(teacher(images).cls_token, teacher(images).cls_token)
    assert not torch.equal(net(images).cls_token, net(images).cls_token)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="unknown method 'simcrl'; known: arm, barlow_twins"):
        create_method("simcrl", small_convnet(3))
    with pytest.raises(ValueError, match="unknown pool 'max'; known: auto, cls, mean"):
        SimCLR(small_convnet(3), pool="max")
    with pytest.raises(ValueError, match="expected a backbone with a class token, got StagedConvNet"):
        SimCLR(small_convnet(3), pool="cls")
    with pytest.raises(ValueError, match="img_size: expected a side above 0, got 0"):
        SimCLR(small_convnet(3), img_size=0)
    with pytest.raises(NotImplementedError, match="Method has no loss"):
        Method(small_convnet(3)).loss(None)
