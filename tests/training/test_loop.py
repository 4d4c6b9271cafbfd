"""The loop: same seed, same numbers; the caller's random state untouched; NaN stops; callbacks, data, bad settings."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from sslcore.backbones import VisionTransformer
from sslcore.data.imageset import ImageSet
from sslcore.methods import Supervised, create_method
from sslcore.methods.queue import EmbeddingQueue
from sslcore.training import NonFiniteLossError, fit, warmup_cosine
from sslcore.training.batches import StoredBatches, ViewSource, map_tensors
from sslcore.training.ranks import Ranks
from tests.training.small_runs import Line, Terms, differing, line, moco, pixels

RUN = {"steps": 6, "batch_size": 5, "lr": 0.01, "device": "cpu"}


def test_same_seed_same_numbers_whatever_the_caller_drew():
    first, second, other = moco(), moco(), moco()
    a = fit(first, pixels(20, 8), **RUN)
    torch.rand(3)
    state = torch.get_rng_state()
    b = fit(second, pixels(20, 8), **RUN)
    assert torch.equal(state, torch.get_rng_state())
    assert a.loss == b.loss and differing(first, second) == []
    assert fit(other, pixels(20, 8), seed=1, **RUN).loss != a.loss


def test_loop_is_plain_gradient_descent_written_out():
    method, by_hand, images = line(), line(), pixels()
    fit(method, images, optimizer="sgd", weight_decay=0.0, seed=2, clip_norm=0.05, **RUN)
    views_of = ViewSource(by_hand, StoredBatches(images, 2, "cpu"), 5, 2, Ranks(), torch.device("cpu"), shared=False)
    speed = [torch.zeros_like(weight) for weight in by_hand.parameters()]
    for step in range(6):
        gradients = torch.autograd.grad(by_hand(views_of(step)).total, list(by_hand.parameters()))
        norm = torch.cat([gradient.flatten() for gradient in gradients]).norm()
        assert norm > 0.05  # else clipping would not be tested
        for weight, gradient, velocity in zip(by_hand.parameters(), gradients, speed, strict=True):
            velocity.mul_(0.9).add_(gradient * 0.05 / (norm + 1e-6))
            weight.data.sub_(warmup_cosine(step, 6, 0.01) * velocity)
    torch.testing.assert_close(method.backbone.weight, by_hand.backbone.weight)


def test_history_holds_every_curve():
    history = fit(line(), pixels(), **RUN)
    assert history.steps == list(range(6)) and history.images_seen == 30 and history.seconds > 0
    assert history.lr == [warmup_cosine(step, 6, 0.01) for step in range(6)]
    assert set(history.terms) == {"pull", "push"}
    for total, pull, push in zip(history.loss, history.terms["pull"], history.terms["push"], strict=True):
        assert total == pytest.approx(pull + push)
    ax = history.plot()
    assert len(ax.lines) == 3 and list(ax.lines[0].get_ydata()) == history.loss


@pytest.mark.parametrize("bad_step", [0, 4])
def test_non_finite_loss_stops_with_the_last_finite_values(bad_step: int):
    method = line(bad_step=bad_step)
    before = fit(line(), pixels(), **RUN).loss
    with pytest.raises(NonFiniteLossError, match=f"Line: loss is not finite at step {bad_step}") as caught:
        fit(method, pixels(), **RUN)
    error = caught.value
    assert (error.step, error.method) == (bad_step, "Line")
    assert method.backbone.weight.isfinite().all()  # caught before the step was taken
    if bad_step:
        assert error.last["step"] == 3 and error.last["loss"] == pytest.approx(before[3], rel=1e-5)
        assert set(error.last) == {"step", "loss", "lr", "pull", "push"}
    else:
        assert error.last == {} and "it was the first step" in str(error)


def test_objective_s_refusal_of_nan_becomes_the_same_error():
    method = moco()
    with torch.no_grad():
        method.backbone.norm.weight[0] = math.nan
    with pytest.raises(NonFiniteLossError, match="MoCo: loss is not finite at step 0"):
        fit(method, pixels(20, 8), **RUN)


def test_other_errors_of_the_objective_pass_through():
    with pytest.raises(ValueError, match="queue_size: expected at least the 5 keys of a batch, got 4"):
        method = moco()
        method.queue = EmbeddingQueue(4, 8)
        fit(method, pixels(20, 8), **RUN)


def test_callback_sees_the_method_in_eval_mode():
    seen = []

    def callback(step, method):
        seen.append((step, method.training, torch.is_grad_enabled()))
        torch.rand(100)  # must not move the run
        return {"weight": method.backbone.weight.mean()} if step != 4 else None

    plain, watched = line(), line()
    fit(plain, pixels(), **RUN)
    history = fit(watched, pixels(), callback=callback, callback_every=2, **RUN)
    assert seen == [(2, False, False), (4, False, False), (6, False, False)]
    assert [step for step, _ in history.values["weight"]] == [2, 6]
    assert history.values["weight"][-1][1] == pytest.approx(float(watched.backbone.weight.mean()))
    assert differing(plain, watched) == []
    seen.clear()
    fit(line(), pixels(), callback=callback, **RUN)
    assert [step for step, _, _ in seen] == [6]


def test_mode_of_the_method_is_given_back():
    assert not fit_and_return(line().eval()).training
    assert fit_and_return(line()).training


def fit_and_return(method: Line) -> Line:
    fit(method, pixels(), **RUN)
    return method


def test_progress_reaches_one():
    method = line()
    told = []
    method.after_step = told.append
    fit(method, pixels(), **RUN)
    assert told == [step / 6 for step in range(1, 7)]


def test_data_may_be_a_function():
    calls = []

    def draw(step, batch_size, generator):
        calls.append((step, batch_size))
        return {"images": torch.randint(0, 256, (batch_size, 3, 4, 4), dtype=torch.uint8, generator=generator)}

    first, second = line(), line()
    fit(first, draw, **RUN)
    fit(second, draw, **RUN)
    assert calls[:6] == [(step, 5) for step in range(6)] and differing(first, second) == []
    with pytest.raises(ValueError, match="expected the function to return a dict with 'images', got Tensor"):
        fit(line(), lambda step, batch_size, generator: pixels(), **RUN)


def test_supervised_learns_a_toy_and_needs_labels():
    net = line().backbone
    net.forward = lambda images: _tokens(F.linear(images.flatten(1), net.weight))
    labels = torch.arange(40) % 2
    images = (labels * 200)[:, None, None, None].expand(40, 3, 4, 4).to(torch.uint8).contiguous()
    data = ImageSet("two", "train", images, labels=labels, classes=["dark", "light"])
    history = fit(Supervised(net, 2), data, steps=60, batch_size=20, lr=0.1, device="cpu")
    assert history.loss[-1] < 0.1 < history.loss[0]
    with pytest.raises(ValueError, match="Supervised: expected labels in the data"):
        fit(Supervised(net, 2), images, steps=1, batch_size=20, device="cpu")


def _tokens(vectors):
    from sslcore.backbones import Tokens

    return Tokens(cls_token=vectors, patch_tokens=vectors[:, None], grid=(1, 1))


def test_bf16_runs_the_networks_in_half_and_keeps_weights_in_float32():
    method, kinds = line(), []
    method.backbone.register_forward_hook(lambda module, inputs, out: kinds.append((inputs[0].dtype, out.dtype)))
    history = fit(method, pixels(), precision="bf16", **RUN)
    assert set(kinds) == {(torch.float32, torch.bfloat16)} and method.backbone.weight.dtype == torch.float32
    exact = fit(line(), pixels(), **RUN).loss
    assert history.loss != exact and history.loss == pytest.approx(exact, rel=0.05)


def test_channels_last_reaches_the_images():
    method, strides = line(), []

    def loss(views):
        strides.append(views.stride())
        return Line.loss(method, views)

    method.loss = loss
    fit(method, pixels(), channels_last=True, **{**RUN, "steps": 1})
    assert strides == [(48, 1, 12, 3)]


def test_views_of_any_nesting_are_mapped():
    one = torch.ones(2)
    tree = {"a": [one, (one, "text")], "b": Terms(one, one, one)}
    out = map_tensors(tree, lambda tensor: tensor + 1)
    assert torch.equal(out["a"][1][0], one + 1) and out["a"][1][1] == "text" and type(out["b"]) is Terms
    assert torch.equal(out["b"].push, one + 1)


def test_activation_checkpointing_gives_the_same_run():
    plain, frugal = moco(), moco()  # stochastic depth must be drawn again as it was
    a = fit(plain, pixels(20, 8), **RUN)
    b = fit(frugal, pixels(20, 8), activation_checkpointing=True, **RUN)
    assert a.loss == b.loss and differing(plain, frugal) == []
    with pytest.raises(ValueError, match="activation_checkpointing: expected a vision transformer"):
        fit(line(), pixels(), activation_checkpointing=True, **RUN)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["simclr", "dino"])
def test_the_loop_does_not_wait_for_the_gpu(name):
    torch.manual_seed(0)
    method = create_method(name, VisionTransformer(16, 4, embed_dim=32, depth=1, num_heads=2))
    move = method.after_step

    def after_step(progress):
        move(progress)
        done = round(10 * progress)
        if done in (3, 8):  # kernels are compiled in the first steps, losses read at the end
            torch.cuda.set_sync_debug_mode("error" if done == 3 else "default")

    method.after_step = after_step
    try:
        history = fit(method, pixels(64, 16), steps=10, batch_size=32, device="cuda", progress=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(history.loss) == 10


@pytest.mark.gpu
def test_views_drawn_ahead_are_the_same_views():
    ahead, at_once = moco(), moco()
    at_once.views_early = False
    settings = {**RUN, "device": "cuda", "precision": "fp32"}
    losses = [fit(method, pixels(20, 8), **settings).loss for method in (ahead, at_once)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"steps": 0}, "steps: expected a whole number of at least 1, got 0"),
        ({"steps": 2.5}, "steps: expected a whole number of at least 1, got 2.5"),
        ({"batch_size": 21}, "batch_size: expected at most 20 images, got 21"),
        ({"batch_size": 0}, "batch_size: expected at least 1, got 0"),
        ({"lr": 0.0}, "lr: expected a finite number above 0, got 0"),
        ({"min_lr": 0.1}, r"min_lr: expected a value in \[0, lr=0.01\], got 0.1"),
        ({"warmup": 1.0}, r"warmup: expected a part of the run in \[0, 1\), got 1.0"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; known: adamw, lars, sgd"),
        ({"precision": "fp16"}, "unknown precision 'fp16'; known: auto, bf16, fp32"),
        ({"clip_norm": 0}, "clip_norm: expected a finite number above 0, got 0"),
        ({"seed": -1}, "seed: expected a whole number of at least 0, got -1"),
        ({"weight_decay": -0.1}, "weight_decay: expected at least 0, got -0.1"),
    ],
)
def test_bad_settings_are_refused(change: dict, told: str):
    with pytest.raises(ValueError, match=told):
        fit(line(), pixels(), **{**RUN, **change})


def test_bad_data_is_refused():
    with pytest.raises(ValueError, match=r"data: expected 4 dimensions, got shape \(20, 4\)"):
        fit(line(), torch.zeros(20, 4), **RUN)
    with pytest.raises(TypeError, match="data: expected uint8 or floating point, got torch.int64"):
        fit(line(), pixels().long(), **RUN)
