"""The command: one process, two under torchrun, a run taken up again, and wrong words told in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from sslcore.training.__main__ import assignments, main

ROOT = Path(__file__).parents[2]
TINY = ["--batch-size", "8", "--set-backbone", "embed_dim=12", "--set-backbone", "depth=1", "--device", "cpu"]


def test_command_trains_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture):
    path, curves = tmp_path / "run.pt", tmp_path / "curves.json"
    words = ["simclr", *TINY, "--set", "projector_dims=(16, 8)", "--checkpoint", str(path), "--history", str(curves)]
    assert main([*words, "--steps", "3"]) == 0
    assert "simclr on 10000 images: 3 steps, 24 images, loss " in capsys.readouterr().out
    assert len(json.loads(curves.read_text())["loss"]) == 3
    saved = torch.load(path, weights_only=True)
    assert saved["step"] == 3 and saved["method"]["projector.0.weight"].shape == (16, 12)
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--steps", "4"])
    assert stopped.value.code == 2 and "steps is 3 there and 4 here" in capsys.readouterr().err


def test_supervised_takes_the_number_of_classes_from_the_data(capsys: pytest.CaptureFixture):
    assert main(["supervised", *TINY, "--steps", "2"]) == 0
    assert "supervised on 10000 images: 2 steps" in capsys.readouterr().out


def test_torchrun_spreads_the_batch(tmp_path: Path):
    path = tmp_path / "run.pt"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["-m", "sslcore.training", "simclr", *TINY, "--steps", "2", "--checkpoint", str(path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    options = {"env": environment, "capture_output": True, "text": True, "timeout": 300, "cwd": tmp_path}
    done = subprocess.run([*launch, *words], **options)
    if "address already in use" in done.stderr.lower():  # torchrun looks for a free port, and another test was faster
        done = subprocess.run([*launch, *words], **options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("simclr on 10000 images: 2 steps, 16 images") == 1
    assert torch.load(path, weights_only=True)["settings"]["ranks"] == 2


@pytest.mark.parametrize(
    "words, told",
    [
        (["simcrl"], "unknown method 'simcrl'; known: arm, "),
        (["simclr", "--data", "imagenat"], "imagenat"),
        (["simclr", "--backbone", "vgg"], "unknown backbone 'vgg'; known: "),
        (["simclr", "--optimizer", "adam"], "unknown optimizer 'adam'; known: adamw, lars, sgd"),
        (["simclr", "--steps", "0"], "steps: expected a whole number of at least 1, got 0"),
        (["simclr", "--batch-size", "10001"], "batch_size: expected at most 10000 images, got 10001"),
        (["simclr", "--set", "temperature"], "expected NAME=VALUE, got 'temperature'"),
        (["simclr", "--set", "temprature=1"], "unexpected keyword argument 'temprature'"),
    ],
)
def test_wrong_words_are_told_in_one_line(words: list[str], told: str, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit) as stopped:
        main([*words, "--device", "cpu"])
    assert stopped.value.code == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("python -m sslcore.training: error: ") and told in last


def test_values_are_literals_or_text():
    assert assignments(["a=1", "b=(2, 3)", "c=mean", "d=None", "e=x=y"]) == {
        "a": 1, "b": (2, 3), "c": "mean", "d": None, "e": "x=y"
    }  # fmt: skip
