"""The toy gates are open on the embedded sets, and the measure of a gate can come out shut."""

import json

import pytest
import torch
from sklearn.metrics import roc_auc_score
from toy_gates import ARMS, GATES, is_open, mean_auroc, measure, neighbour_presence

from sslcore.files import chapters_folder


@pytest.mark.parametrize("name", ["fashion_mnist", "stamps"])
def test_gate_is_open(name):
    scores = measure(name, seed=0, quick=True)
    assert is_open(name, scores, quick=True), scores
    assert min(scores["pixels"], scores["untrained"]) > 1.5 * GATES[name].chance, "controls see something"


@pytest.mark.parametrize("name", sorted(GATES))
def test_a_gate_can_be_shut(name):
    limits = GATES[name].whole
    good = {"supervised": limits.bar + 0.01, "pixels": limits.bar - limits.gap - 0.01, "untrained": 0.1}
    assert is_open(name, good)
    assert not is_open(name, {**good, "supervised": limits.bar - 0.001})
    assert not is_open(name, {**good, "untrained": good["supervised"] - limits.gap + 0.01})


def test_recorded_gates_are_open():
    """The committed table was measured with the bars in force now, and every gate in it is open on every seed."""
    record = json.loads((chapters_folder() / "00_start" / "toy_gates.cpu.json").read_text("utf-8"))
    assert set(record["gates"]) == set(GATES)
    for name, entry in record["gates"].items():
        assert (entry["bar"], entry["gap"]) == (GATES[name].whole.bar, GATES[name].whole.gap)
        runs = [
            dict(zip(ARMS, values, strict=True)) for values in zip(*(entry["values"][a] for a in ARMS), strict=True)
        ]
        assert len(runs) == len(record["seeds"]) and entry["open"] == all(is_open(name, run) for run in runs)
        assert entry["open"]


def test_mean_auroc_agrees_with_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(60, 5, generator=generator)
    targets = (torch.rand(60, 5, generator=generator) < 0.2).float()
    targets[:, 4] = 0  # a column without positives has no ROC curve and is left out
    expected = sum(roc_auc_score(targets[:, c], scores[:, c]) for c in range(4)) / 4
    assert mean_auroc(scores, targets) == pytest.approx(expected)


def test_neighbour_presence_by_hand():
    train = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    targets = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    votes = neighbour_presence(train, targets, torch.tensor([[2.0, 0.0]]), k=2, temperature=1.0)
    assert torch.allclose(votes, torch.tensor([[1.0, torch.tensor(-1.0).exp()]]))
