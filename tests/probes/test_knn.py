"""kNN: limits in k and temperature, parity with an independent implementation, bad input."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from sslcore.probes.knn import knn_eval, knn_predict


def blobs(count: int, classes: int = 4, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(1))
    labels = torch.randint(classes, (count,))
    return centres[labels] + torch.randn(count, width), labels


def test_one_neighbour_gives_the_nearest_label():
    train, labels = blobs(50)
    test, _ = blobs(30)
    nearest = (F.normalize(test, dim=1) @ F.normalize(train, dim=1).T).argmax(1)
    assert torch.equal(knn_predict(train, labels, test, k=1), labels[nearest])


def test_small_temperature_is_one_neighbour_and_large_is_the_majority():
    train, labels = blobs(60)
    test, _ = blobs(40)
    cold = knn_predict(train, labels, test, k=9, temperature=1e-6)
    assert torch.equal(cold, knn_predict(train, labels, test, k=1))
    similarity = F.normalize(test, dim=1) @ F.normalize(train, dim=1).T
    votes = F.one_hot(labels[similarity.topk(9, dim=1).indices], 4).sum(1)
    clear = votes.topk(2, dim=1).values.diff(dim=1)[:, 0] < 0  # a tie is nobody's majority
    hot = knn_predict(train, labels, test, k=9, temperature=1e6)
    assert clear.sum() > 20 and torch.equal(hot[clear], votes.argmax(1)[clear])


@pytest.mark.parametrize("k", [1, 5, 20])
def test_agrees_with_lightly(k):
    knn = pytest.importorskip("lightly.utils.benchmarking.knn")
    train, labels = blobs(200)
    test, _ = blobs(64)
    ranked = knn.knn_predict(
        F.normalize(test, dim=1), F.normalize(train, dim=1).T, labels, num_classes=4, knn_k=k, knn_t=0.07
    )
    assert torch.equal(knn_predict(train, labels, test, k=k, chunk=17), ranked[:, 0])


def test_accuracy_is_a_share_and_length_does_not_matter():
    train, labels = blobs(300)
    test, answers = blobs(100)
    value = knn_eval(train, labels, test, answers)
    assert value == pytest.approx(float((knn_predict(train, labels, test) == answers).float().mean()))
    scaled = train * torch.rand(300, 1).add(0.5)
    assert knn_eval(scaled, labels, test * 7, answers) == pytest.approx(value)


def test_shuffled_labels_give_chance():
    train, labels = blobs(400)
    test, answers = blobs(400)
    assert knn_eval(train, labels, test, answers) > 0.6
    assert abs(knn_eval(train, labels[torch.randperm(400)], test, answers) - 0.25) < 0.1


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 51}, "k: expected"),
        ({"k": 0}, "k: expected"),
        ({"temperature": 0.0}, "temperature"),
        ({"train_labels": None}, "labels"),
        ({"train_labels": torch.zeros(3, dtype=torch.long)}, "expected 50, one a row of features, got 3"),
        ({"train_labels": torch.full((50,), -1)}, ">= 0"),
        ({"train_features": torch.full((50, 8), float("nan"))}, "finite"),
        ({"test_features": torch.zeros(5, 7)}, "widths"),
        ({"test_features": torch.zeros(0, 8), "test_labels": torch.zeros(0, dtype=torch.long)}, "at least one"),
    ],
)
def test_bad_input_is_named(change, message):
    train, labels = blobs(50)
    test, answers = blobs(5)
    good = {"train_features": train, "train_labels": labels, "test_features": test, "test_labels": answers}
    with pytest.raises(ValueError, match=message):
        knn_eval(**(good | change))
