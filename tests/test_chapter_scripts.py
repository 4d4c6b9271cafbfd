"""Scripts beside the notebooks run to their end at their tiny scale, and every recipe in them takes a step."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from sslcore.data import ImageSet
from sslcore.hub import load_backbone
from sslcore.training import fit

CHAPTERS = Path(__file__).parents[1] / "chapters"


def script(path: str):
    spec = importlib.util.spec_from_file_location(f"script_{Path(path).stem}", CHAPTERS / path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


family = script("04_masked/family_runs.py")
base = script("checkpoints/train.py")
selfie = script("checkpoints/selfie.py")


@pytest.mark.parametrize("name", list(family.RECIPES))
def test_every_recipe_of_the_family_takes_a_step(name):
    torch.manual_seed(0)
    method = family.RECIPES[name].make()
    images = torch.randint(0, 256, (8, 3, family.SIZE, family.SIZE), dtype=torch.uint8)
    data = ImageSet("random", "train", images, torch.arange(8))
    history = fit(method, data, steps=1, batch_size=8, lr=1e-3, device="cpu", progress=False)
    assert history.loss[0] == history.loss[0]


def test_family_runs_end_in_evidence(tmp_path, monkeypatch):
    monkeypatch.setattr(family, "RECIPES", {"mae": family.RECIPES["mae"]})
    monkeypatch.setattr(family, "ARMS", ("mae", "untrained"))
    monkeypatch.setattr("sys.argv", ["family_runs.py"])
    family.main(["--scale", "tiny", "--only", "mae", "untrained", "--runs", str(tmp_path)])
    evidence = json.loads((tmp_path / "masked_family.cpu.json").read_text())
    claims = evidence["claims"]
    assert evidence["numbers"]["chosen"] == {"mae": 1e-3} and set(evidence["numbers"]["pixels"]) >= {"knn", "linear"}
    assert set(claims) == {"mae_linear", "mae_fine_tuned", "mae_binding"}
    assert {"knn", "fine_tuned", "binding", "layer_0", "seconds"} <= set(claims["mae_linear"]["secondary"]["mae"])
    again = (tmp_path / "tiny_mae_0.json").stat().st_mtime_ns
    family.main(["--scale", "tiny", "--only", "mae", "--seeds", "0", "--runs", str(tmp_path)])
    assert (tmp_path / "tiny_mae_0.json").stat().st_mtime_ns == again, "a finished run is not repeated"


@pytest.mark.parametrize(("peak", "tried"), [(1e-3, 4), (3e-3, 3), (1e-2, 4), (1e-1, 5), (3e-4, 4)])
def test_the_search_for_a_rate_goes_on_while_the_best_lies_at_an_end(peak, tried, tmp_path, monkeypatch):
    scores = {lr: -abs(family.RATES.index(lr) - family.RATES.index(peak)) for lr in family.RATES}
    runs = family.Runs("cpu", tmp_path, torch.device("cpu"))

    def kept(self, name, make):
        return {"val_linear": scores[float(name.split("_")[-1])]}

    monkeypatch.setattr(family.Runs, "kept", kept)
    best, found = runs.rate("mae")
    assert best == peak and len(found) == tried and set(family.RATES[1:4]) <= set(found)


@pytest.mark.parametrize("name", [*base.CLAIMED, *base.KEPT])
def test_checkpoint_script_trains_and_reads_each_method(name, tmp_path):
    base.main(["checkpoints", "--scale", "tiny", "--only", name, "--runs", str(tmp_path)])
    found = json.loads((tmp_path / f"checkpoints_tiny_{name}_0.json").read_text())
    assert {"binding", "identity", "images_seen"} <= set(found)
    assert (tmp_path / f"{name}_vit.safetensors").exists()


def test_selfie_script_writes_a_checkpoint_that_loads(tmp_path):
    selfie.main(["--scale", "tiny", "--runs", str(tmp_path)])
    net = load_backbone("selfie_pool", tmp_path)
    assert net(torch.rand(1, 3, 64, 64), return_attention=True).attentions[0].shape == (1, 4, 65, 65)


def test_order_script_trains_networks_and_keeps_decoders(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(CHAPTERS / "checkpoints")  # where the script itself finds train.py
    order = script("checkpoints/order.py")
    names = ["decoder_mae_vit", "single_mae_1700_0", "scenes_supervised_1000_0"]
    where = ["--runs", str(tmp_path / "runs"), "--folder", str(tmp_path / "order")]
    order.main(["--scale", "tiny", "--only", *names, *where])
    decoders = {path.stem for path in (tmp_path / "order").glob("decoder_*.safetensors")}
    assert decoders == {"decoder_mae_vit", "decoder_single_mae_1700_0"}
    net = load_backbone("single_mae_1700_0", tmp_path / "order")
    assert net(torch.rand(1, 3, 64, 64)).patch_tokens.shape == (1, 64, 32)
    assert set(order.RUNS) >= set(names[:2])
