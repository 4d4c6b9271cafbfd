"""A run killed at any step ends on the weights of the unbroken run; a wrong file is named, not loaded."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sslcore.training import History, fit
from sslcore.training.checkpoint import describe, save_checkpoint
from tests.training.small_runs import differing, line, moco, pixels

RUN = {"steps": 12, "batch_size": 6, "lr": 0.01, "device": "cpu", "clip_norm": 1.0}


class Stop(Exception):
    """Thrown by a callback to break a run off."""


def stop_at(step: int):
    def callback(done: int, method: torch.nn.Module) -> None:
        if done == step:
            raise Stop

    return callback


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
@pytest.mark.parametrize("stop", [2, 5, 11])
def test_resumed_run_equals_the_unbroken_one(tmp_path: Path, optimizer: str, stop: int):
    path, images = tmp_path / "run.pt", pixels(20, 8)
    whole = moco()
    curves = fit(whole, images, optimizer=optimizer, **RUN)
    with pytest.raises(Stop):
        settings = {"checkpoint": path, "checkpoint_every": 1, "callback": stop_at(stop), "callback_every": 1}
        fit(moco(), images, optimizer=optimizer, **RUN, **settings)
    saved = torch.load(path, weights_only=True)["step"]
    assert saved == stop - 1  # the callback comes before the checkpoint of its step
    torch.rand(5)  # the resumed process has drawn other numbers
    resumed = moco(seed=1)
    again = fit(resumed, images, optimizer=optimizer, checkpoint=path, **RUN)
    assert differing(whole, resumed) == []
    assert again.loss == curves.loss and again.lr == curves.lr and again.steps == list(range(12))


KILLED = """
import sys, time
from sslcore.training import History, fit
from tests.training.small_runs import moco, pixels
fit(moco(), pixels(20, 8), checkpoint=sys.argv[1], checkpoint_every=1, callback=lambda step, method: time.sleep(0.05),
    callback_every=1, steps=40, batch_size=6, lr=0.01, device="cpu")
"""


def test_run_killed_without_warning_resumes_bitwise(tmp_path: Path):
    path = tmp_path / "run.pt"
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    victim = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], env=environment, cwd=root)
    try:
        deadline = time.monotonic() + 120
        while not path.exists() and time.monotonic() < deadline and victim.poll() is None:
            time.sleep(0.01)
        time.sleep(0.2)
    finally:
        victim.send_signal(signal.SIGKILL)
        victim.wait()
    assert victim.returncode == -signal.SIGKILL, "the run ended before it was killed"
    saved = torch.load(path, weights_only=True)["step"]
    assert 1 <= saved < 40
    run = {"steps": 40, "batch_size": 6, "lr": 0.01, "device": "cpu"}
    whole, resumed = moco(), moco(seed=5)
    fit(whole, pixels(20, 8), **run)
    fit(resumed, pixels(20, 8), checkpoint=path, **run)
    assert differing(whole, resumed) == []


def test_finished_run_is_loaded_not_repeated(tmp_path: Path):
    path, first, second = tmp_path / "run.pt", line(), line(seed=1)
    before = fit(first, pixels(), checkpoint=path, **RUN)
    after = fit(second, pixels(), checkpoint=path, **RUN)
    assert differing(first, second) == [] and second.calls == 12
    assert after == before


def test_resume_false_starts_over(tmp_path: Path):
    path = tmp_path / "run.pt"
    fit(line(), pixels(), checkpoint=path, **RUN)
    fresh, other = line(seed=1), line(seed=1)
    fit(fresh, pixels(), checkpoint=path, resume=False, **RUN)
    fit(other, pixels(), **RUN)
    assert differing(fresh, other) == []


@pytest.mark.parametrize(
    "change, told",
    [
        ({"seed": 1}, "seed is 0 there and 1 here"),
        ({"steps": 13}, "steps is 12 there and 13 here"),
        ({"lr": 0.02}, "lr is 0.01 there and 0.02 here"),
        ({"optimizer": "sgd"}, "optimizer is 'adamw' there and 'sgd' here"),
        ({"batch_size": 5}, "batch_size is 6 there and 5 here"),
    ],
)
def test_checkpoint_of_another_run_is_refused(tmp_path: Path, change: dict, told: str):
    path = tmp_path / "run.pt"
    fit(line(), pixels(), checkpoint=path, **RUN)
    method = line(seed=1)
    before = method.backbone.weight.detach().clone()
    with pytest.raises(ValueError, match=f"{told}.*resume=False"):
        fit(method, pixels(), checkpoint=path, **{**RUN, **change})
    assert torch.equal(method.backbone.weight, before)


def test_checkpoint_of_another_method_or_network_is_refused(tmp_path: Path):
    path = tmp_path / "run.pt"
    fit(line(), pixels(20, 8)[..., :4, :4], checkpoint=path, **RUN)
    with pytest.raises(ValueError, match="method is 'Line' there and 'MoCo' here"):
        fit(moco(), pixels(20, 8), checkpoint=path, **RUN)
    with pytest.raises(ValueError, match="out_features=3.* there and .*out_features=4"):
        fit(line(width=4), pixels(), checkpoint=path, **RUN)
    with pytest.raises(ValueError, match="images is 20 there and 19 here"):
        fit(line(), pixels(19), checkpoint=path, **RUN)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.99])
def test_file_cut_short_is_refused(tmp_path: Path, keep: float):
    path = tmp_path / "run.pt"
    fit(line(), pixels(), checkpoint=path, **RUN)
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=r"run.pt: expected a training checkpoint, got a file that can't be read"):
        fit(line(), pixels(), checkpoint=path, **RUN)


def test_other_files_are_refused(tmp_path: Path):
    path = tmp_path / "run.pt"
    path.write_text("not a checkpoint\n")
    with pytest.raises(ValueError, match="can't be read"):
        fit(line(), pixels(), checkpoint=path, **RUN)
    torch.save({"weights": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="got another kind of file"):
        fit(line(), pixels(), checkpoint=path, **RUN)


def test_failed_write_leaves_the_old_file(tmp_path: Path):
    path, method = tmp_path / "run.pt", line()
    fit(method, pixels(), checkpoint=path, **RUN)
    before = path.read_bytes()
    with pytest.raises(Exception, match="pickle"):
        save_checkpoint(path, 1, method, torch.optim.SGD(method.parameters(), 0.1), History(), {"f": lambda: 0})
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_description_does_not_depend_on_addresses():
    first, second = line(), line()
    first.policy, second.policy = (lambda size: size), (lambda size: size)
    assert describe(first) == describe(second) and "policy=<function" in describe(first)
