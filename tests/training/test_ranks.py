"""Two and three gloo processes against one: the same losses, weights, queues and centres, for every method."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sslcore.data import ImageSet, stream_images
from sslcore.training import fit
from sslcore.training.ranks import GlobalBatchNorm, Ranks, convert_batch_norm
from tests.methods.small_methods import small_set
from tests.training.rank_worker import (
    REFUSED,
    RESUMED,
    RUN,
    TEN_STEPS,
    SeesWholeWeights,
    begin,
    build,
    cases,
    sharded_cases,
    train,
)
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


def prepared(folder: Path) -> Path:
    """A folder with shards of images and the checkpoint of a run that one process broke off."""
    sys.path.insert(0, str(ROOT / "data_scripts"))
    from write_shards import write_shards

    images = ImageSet("small", "train", pixels(30, 16))
    write_shards(images, folder / "shards", per_shard=8)
    begin(folder / "single.pt", optimizer="adamw")
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {size: prepared(tmp_path_factory.mktemp(f"ranks{size}")) for size in (2, 3)}


@pytest.fixture(scope="module")
def two(folders: dict[int, Path]) -> list[dict[str, Any]]:
    return run_ranks(2, folders[2])


@pytest.fixture(scope="module")
def three(folders: dict[int, Path]) -> list[dict[str, Any]]:
    return run_ranks(3, folders[3])


@functools.cache
def alone(*case: Any, **settings: Any) -> dict[str, Any]:
    """What one process computes."""
    return train(*case, **settings)


def check(results: list[dict[str, Any]], name: str, expected: dict[str, Any], rtol: float = 1e-4) -> None:
    """Every rank has the same loss curve and weights as one process."""
    for rank, result in enumerate(results):
        got, told = result[name], f"{name} on rank {rank}: "
        assert got["loss"] == pytest.approx(expected["loss"], rel=1e-5, abs=1e-5), told
        for key, value in expected["state"].items():
            assert torch.equal(got["state"][key], results[0][name]["state"][key]), told + key
            note = told + key
            torch.testing.assert_close(got["state"][key], value, rtol=rtol, atol=1e-5, msg=lambda m, n=note: n + m)


def check_against_one_process(results: list[dict[str, Any]]) -> None:
    for case in cases(len(results)):
        check(results, "-".join(map(str, case)), alone(*case), rtol=1e-5 if case in TEN_STEPS else 1e-4)


def test_two_ranks_train_like_one_process(two: list[dict[str, Any]]):
    check_against_one_process(two)


def test_ranks_that_cluster_agree_on_labels_and_weights(two: list[dict[str, Any]]):
    first, second = (result["clustered"] for result in two)
    assert int(first["rounds"]) == 3
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert all("expected training without fsdp" in result["fsdp clusters"] for result in two)


def test_three_ranks_train_like_one_process(three: list[dict[str, Any]]):
    check_against_one_process(three)


def test_ten_steps_move_the_weights_far_enough_to_tell():
    for case in TEN_STEPS:
        before = build(*case[:2]).state_dict()
        after = alone(*case)["state"]
        assert max((after[name].double() - value.double()).abs().max() for name, value in before.items()) > 0.01, case


def test_sharded_weights_train_like_whole_ones(two: list[dict[str, Any]], three: list[dict[str, Any]]):
    for results in (two, three):
        for case in sharded_cases(len(results)):
            check(results, "fsdp-" + "-".join(map(str, case)), alone(*case))
    assert all(0.45 < result["share"] < 0.55 for result in two)  # and each rank holds its part only
    check(two, "clipped", alone("simclr", "vit", 3, clip_norm=0.1))
    check(two, "channels last", alone("vicreg", "convnet", 3))
    check(two, "recomputed", alone("simclr", "vit", 3))
    half = alone("simclr", "vit", 3, precision="bf16")["loss"]
    assert all(result["bf16"] == pytest.approx(half, rel=1e-2) for result in two)
    check(two, "lars", alone("simclr", "vit", 3, optimizer="lars", lr=0.5))


def test_callback_of_a_sharded_run_sees_whole_weights(two: list[dict[str, Any]]):
    expected = fit(build("simclr", "vit"), small_set(), steps=4, callback=SeesWholeWeights(), callback_every=2, **RUN)
    for result in two:
        assert [step for step, _ in result["watched"]["sum"]] == [2, 4]
        assert result["watched"]["sum"][1][1] == pytest.approx(expected.values["sum"][1][1], rel=1e-5)


def test_run_goes_on_with_another_number_of_ranks(
    folders: dict[int, Path], two: list[dict[str, Any]], three: list[dict[str, Any]]
):
    expected = alone(*RESUMED, optimizer="adamw")
    for results in (two, three):
        size = len(results)
        for how in (0, 1):  # whole on each rank, and sharded
            check(results, f"single to {size}, {how}", expected)
            path = folders[size] / f"several{how}.pt"
            saved = torch.load(path, weights_only=True)
            assert saved["step"] == 3 and saved["settings"]["ranks"] == size
            back = train(*RESUMED, checkpoint=path, optimizer="adamw")
            check([{"back": back}], "back", expected)


def test_ranks_read_the_same_stream_as_one_process(folders: dict[int, Path], two, three):
    expected = alone("simclr", "vit", 4, data=stream_images(folders[2] / "shards", img_size=16, workers=0))
    for results in (two, three):
        check(results, "stream", expected)


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
        assert result["private fsdp"] == result["private"]


def test_what_cannot_be_sharded_is_refused(two: list[dict[str, Any]]):
    for result in two:
        assert "fsdp: a scalar parameter cannot be split, give gain the shape (1,)" in result["scalar"]
        for name in REFUSED:
            assert "or takes gradients inside it; train it without fsdp" in result[f"refused {name}"]
        assert "compile: not together with fsdp" in result["compiled"]
    with pytest.raises(ValueError, match=r"fsdp: expected several processes \(torchrun .*\), got one"):
        fit(line(), pixels(), batch_size=6, device="cpu", steps=2, fsdp=True)


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
