"""Training from disk: the batches do not depend on workers or ranks, a killed run resumes bitwise, damage is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sslcore.data import DataFileError, ImageSet, stream_images
from sslcore.training import fit
from sslcore.training.__main__ import main
from sslcore.training.batches import StreamedBatches
from tests.training.small_runs import Line, differing, line, pixels

ALL = slice(None)
RUN = {"steps": 9, "batch_size": 6, "lr": 0.01, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 images of 4 x 4 pixels in three shards, labelled by their number."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "data_scripts"))
    from write_shards import write_shards

    place = tmp_path_factory.mktemp("shards")
    write_shards(ImageSet("set", "train", pixels(), labels=torch.arange(20)), place, per_shard=8)
    return place


def stream(folder: Path, **settings: Any):
    return stream_images(folder, **{"img_size": 4, "workers": 0, **settings})


def batches(folder: Path, **settings: Any) -> StreamedBatches:
    return StreamedBatches(stream(folder, **settings), 3, torch.device("cpu"))


def test_epochs_visit_each_image_once_with_its_label(folder: Path):
    source = batches(folder)
    epochs = [[source(4 * epoch + k, 5, ALL) for k in range(4)] for epoch in range(2)]
    orders = [torch.cat([batch["index"] for batch in epoch]) for epoch in epochs]
    assert all(torch.equal(order.sort().values, torch.arange(20)) for order in orders)
    assert not torch.equal(*orders)
    for batch in epochs[0]:
        assert torch.equal(batch["labels"], batch["index"]) and torch.equal(batch["images"], pixels()[batch["index"]])


def test_images_left_over_are_skipped_in_that_epoch(folder: Path):
    source = batches(folder)
    seen = torch.cat([source(step, 6, ALL)["index"] for step in range(3)])
    assert len(seen.unique()) == 18 and source(3, 6, ALL)["index"].shape == (6,)


def test_workers_jumps_and_parts_make_no_difference(folder: Path):
    source = batches(folder, crop="random")
    straight = [source(step, 6, ALL) for step in range(7)]
    with_workers = batches(folder, crop="random", workers=2)
    for step in (*range(7), 5, 0):
        batch = with_workers(step, 6, ALL)
        assert torch.equal(batch["images"], straight[step]["images"]), step
    parts = [batches(folder, crop="random")(2, 6, slice(2 * rank, 2 * rank + 2))["index"] for rank in range(3)]
    assert torch.equal(torch.cat(parts), straight[2]["index"])
    with_workers.close()


def test_training_from_disk_equals_training_from_memory_in_the_same_order(folder: Path):
    source = StreamedBatches(stream(folder), 0, torch.device("cpu"))
    ordered: list[Tensor] = [source(step, 6, ALL)["images"] for step in range(9)]
    first, second = line(), line()
    from_disk = fit(first, stream(folder, workers=1), **RUN)
    from_memory = fit(second, lambda step, batch_size, generator: {"images": ordered[step]}, **RUN)
    assert differing(first, second) == [] and from_disk.loss == from_memory.loss


@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_the_unbroken_one(folder: Path, tmp_path: Path, workers: int):
    class Stop(Exception):
        pass

    def stop(done: int, method: torch.nn.Module) -> None:
        if done == 5:
            raise Stop

    path, whole, resumed = tmp_path / "run.pt", line(), line(seed=4)
    fit(whole, stream(folder, crop="random"), **RUN)
    with pytest.raises(Stop):
        settings = {"checkpoint": path, "checkpoint_every": 1, "callback": stop, "callback_every": 1}
        fit(line(), stream(folder, crop="random", workers=workers), **RUN, **settings)
    read = stream(folder, crop="random", workers=workers)
    fit(resumed, read, checkpoint=path, **RUN)
    assert differing(whole, resumed) == []


def test_caller_s_random_state_is_left_alone(folder: Path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(line(), stream(folder, workers=1), **RUN)
    torch.manual_seed(5)
    source = batches(folder, workers=1)
    source(0, 5, ALL)
    assert torch.equal(torch.rand(3), expected)


def damaged(folder: Path, target: Path) -> Path:
    """The first shard with one image spoilt."""
    read = stream(folder)
    content = bytearray((folder / "train-000000.tar").read_bytes())
    start = int(read.index.start[3])
    content[start : start + 20] = bytes(20)
    target.mkdir()
    (target / "train-000000.tar").write_bytes(content)
    return target


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_image_stops_the_run_by_name_or_is_counted(folder: Path, tmp_path: Path, workers: int):
    place = damaged(folder, tmp_path / "bad")
    with pytest.raises(DataFileError, match=r"^.*train-000000\.tar at byte \d+: expected an image, could not decode"):
        fit(line(), stream(place, workers=workers), **RUN)
    lenient = stream(place, workers=workers, on_error="skip")
    fit(line(), lenient, **{**RUN, "batch_size": 8})
    assert list(lenient.skipped.values()) == [9]  # once in each of nine epochs of one step


def test_what_a_stream_cannot_give_is_refused(folder: Path):
    class NeedsMasks(Line):
        needs = ("masks",)

    with pytest.raises(ValueError, match="data: expected masks with the images, but a stream has labels at most"):
        fit(NeedsMasks(), stream(folder), **RUN)
    with pytest.raises(ValueError, match="batch_size: expected at most 20 images, got 21"):
        fit(line(), stream(folder), **{**RUN, "batch_size": 21})


def test_function_that_returns_another_number_of_images_is_refused():
    def short(step: int, batch_size: int, generator: torch.Generator) -> dict[str, Tensor]:
        return {"images": pixels(batch_size - (step == 2))}

    with pytest.raises(ValueError, match="expected the function to return 6 images at step 2, got 5"):
        fit(line(), short, **RUN)


def test_command_reads_shards(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = ["simclr", "--device", "cpu", "--img-size", "8", "--workers", "0", "--batch-size", "6", "--steps", "3"]
    words += ["--set-backbone", "embed_dim=12", "--set-backbone", "depth=1", "--set", "projector_dims=(8, 8)"]
    curves = tmp_path / "curves.json"
    assert main([*words, "--data", str(folder), "--history", str(curves)]) == 0
    assert "simclr on 20 images: 3 steps" in capsys.readouterr().out
    assert len(json.loads(curves.read_text())["loss"]) == 3
    place = damaged(folder, tmp_path / "bad")
    assert main([*words, "--batch-size", "8", "--data", f"{place}/*.tar", "--skip-unreadable"]) == 0
    assert "process 0 skipped 3 times 1 unreadable images; first: " in capsys.readouterr().out
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--data", str(tmp_path / "none")])
    assert stopped.value.code == 2 and "nothing is there" in capsys.readouterr().err
