"""Two and three gloo processes against one: the same losses, weights, queues and centres, for every method."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslcore.training import fit
from sslcore.training.ranks import GlobalBatchNorm, Ranks, convert_batch_norm
from tests.training.rank_worker import cases, train
from tests.training.small_runs import line, pixels

ROOT = Path(__file__).parents[2]


def run_ranks(size: int, folder: Path) -> list[dict[str, Any]]:
    """What each of `size` processes computed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "tests.training.rank_worker"]
    processes = [
        subprocess.Popen(
            [*words, str(rank), str(size), str(folder)], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(errors)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(size)]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(2, tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return run_ranks(3, tmp_path_factory.mktemp("three"))


def check_against_one_process(results: list[dict[str, Any]]) -> None:
    for case in cases(len(results)):
        name, expected = "-".join(map(str, case)), train(*case)
        for rank, result in enumerate(results):
            got = result[name]
            told = f"{name} on rank {rank}: "
            assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5, abs=1e-5), told
            for key, value in expected["state"].items():
                assert torch.equal(got["state"][key], results[0][name]["state"][key]), told + key
                note = told + key
                torch.testing.assert_close(got["state"][key], value, rtol=1e-4, atol=1e-5, msg=lambda m, n=note: n + m)


def test_two_ranks_train_like_one_process(two: list[dict[str, Any]]):
    check_against_one_process(two)


def test_three_ranks_train_like_one_process(three: list[dict[str, Any]]):
    check_against_one_process(three)


def test_checkpoint_is_written_once_and_resumes(two: list[dict[str, Any]]):
    for result in two:
        assert result["files"] == ["run.pt"] and result["resume"]["step"] == 8
        whole, resumed = result["resume"]["whole"], result["resume"]["resumed"]
        assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_every_rank_stops_for_one_rank_s_nan(two: list[dict[str, Any]]):
    for result in two:
        assert "Line: loss is not finite at step 2" in result["nan"]
        assert "batch_size: expected a multiple of the 2 ranks, got 5" in result["uneven"]


def test_checkpoint_that_only_one_rank_sees_is_refused(two: list[dict[str, Any]]):
    for result in two:
        assert result["private"] == "steps found in the checkpoint: expected the same on every rank, got [8, 0]"


def test_ranks_draw_their_own_views_unless_told(two: list[dict[str, Any]]):
    one = fit(line(), pixels(), batch_size=6, device="cpu", steps=8).loss
    shared_history = two[0]["own_views"]
    assert shared_history == two[1]["own_views"]
    assert shared_history != one and shared_history == pytest.approx(one, rel=0.1)


def test_one_process_is_left_alone():
    ranks, method = Ranks(), line()
    assert (ranks.rank, ranks.size, ranks.group) == (0, 1, None)
    assert ranks.part(7) == slice(0, 7) and ranks.wrap(method, torch.device("cpu")) is method


def test_exchanged_batch_norm_keeps_its_tensors_and_its_values():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm2d(4, affine=False)))
    net(torch.randn(8, 3, 6, 6))
    net.eval()
    images = torch.randn(2, 3, 6, 6)
    before, state = net(images), {name: value.data_ptr() for name, value in net.state_dict().items()}
    convert_batch_norm(net, None, torch.device("cpu"))
    assert isinstance(net[1], GlobalBatchNorm) and isinstance(net[2][0], GlobalBatchNorm) and not net[1].training
    assert {name: value.data_ptr() for name, value in net.state_dict().items()} == state
    assert torch.equal(net(images), before)
