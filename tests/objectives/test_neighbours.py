"""Claims about supcon and leave_one_out_knn, one test each.

- They equal a double loop in NumPy; supcon with pairs is NT-Xent; the vote is scikit-learn's weighted kNN.
- A class in two pure, separate groups costs leave-one-out kNN exactly 0, with gradient 0; SupCon pulls on it.
- k = None is the soft nearest neighbour loss; k = 1 has no gradient; one mate among k equals costs ln k.
- What lies beyond the k nearest does not count; an image's own copies do not count.
- Row lengths, order and rotation do not matter. Gradients equal finite differences and the closed form.
- Half precision, autocast, rows without mates, and bad input.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from sklearn.neighbors import KNeighborsClassifier

from sslcore.objectives import leave_one_out_knn, leave_one_out_votes, nt_xent, supcon


def unit_numpy(x):
    x = x.double().numpy()
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def slow_supcon(z, labels, temperature):
    z, losses = unit_numpy(z), []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        mates = [j for j in others if labels[j] == labels[i]]
        denominator = np.log(sum(np.exp(z[i] @ z[a] / temperature) for a in others))
        if mates:
            losses.append(np.mean([denominator - z[i] @ z[j] / temperature for j in mates]))
    return float(np.mean(losses)) if losses else 0.0


def slow_look(z, labels, k, temperature, memory=None, memory_labels=None, ids=None, memory_ids=None, missing="drop"):
    rows = unit_numpy(z)
    own = memory is None
    bank, names, marks = (rows, labels, ids) if own else (unit_numpy(memory), memory_labels, memory_ids)
    losses = []
    for i in range(len(rows)):
        others = [j for j in range(len(bank)) if not (own and i == j) and not (ids is not None and marks[j] == ids[i])]
        others.sort(key=lambda j: -(rows[i] @ bank[j]))
        nearest = others[:k]
        weight = {j: np.exp(rows[i] @ bank[j] / temperature) for j in others}
        if missing == "add" and not any(names[j] == labels[i] for j in nearest):
            nearest = nearest + [j for j in others if names[j] == labels[i]][:1]
        share = sum(weight[j] for j in nearest if names[j] == labels[i]) / sum(weight[j] for j in nearest)
        if share > 0:
            losses.append(-np.log(share))
    return float(np.mean(losses)) if losses else 0.0


@pytest.mark.parametrize("temperature", [0.1, 0.5, 10.0])
@pytest.mark.parametrize(("num", "dim", "classes"), [(2, 3, 1), (7, 2, 3), (24, 8, 4)])
def test_supcon_equals_the_loop(num, dim, classes, temperature):
    z, labels = torch.randn(num, dim) * 3, torch.arange(num) % classes
    labels[-1] = 9 if num > 2 else labels[-1]  # a row without a mate
    got = supcon(z, labels, temperature).item()
    assert got == pytest.approx(slow_supcon(z, labels.numpy(), temperature), rel=1e-5)


@given(num=st.integers(2, 8), seed=st.integers(0, 99))
def test_supcon_with_one_pair_a_label_is_nt_xent(num, seed):
    z0, z1 = torch.randn(2, num, 5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(supcon(torch.cat([z0, z1]), torch.arange(num).repeat(2), 0.2), nt_xent(z0, z1, 0.2))


@pytest.mark.parametrize("missing", ["drop", "add"])
@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("memory", [False, True])
@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_leave_one_out_equals_the_loop(k, memory, ids, missing):
    z, labels = torch.randn(14, 6), torch.arange(14) % 4
    inputs = {"ids": torch.arange(14) // 2} if ids else {}
    if memory:
        inputs |= {"memory": torch.randn(20, 6), "memory_labels": torch.arange(20) % 5}
        inputs |= {"memory_ids": torch.arange(20) // 3} if ids else {}
    expected = slow_look(z, labels, k, 0.3, **inputs, missing=missing)
    assert leave_one_out_knn(z, labels, k, 0.3, **inputs, missing=missing).item() == pytest.approx(expected, abs=1e-5)


def test_votes_equal_scikit_learn():
    z, labels = F.normalize(torch.randn(30, 4)), torch.arange(30) % 3
    votes = leave_one_out_votes(z, labels, 7, 0.2)
    for i in range(30):
        rest = torch.arange(30) != i
        # |a - b|^2 = 2 - 2 cos, so exp(cos / temperature) is, up to a factor, exp(-distance^2 / (2 temperature))
        knn = KNeighborsClassifier(7, weights=lambda distance: np.exp(-(distance**2) / (2 * 0.2)))
        share = knn.fit(z[rest].numpy(), labels[rest].numpy()).predict_proba(z[i : i + 1].numpy())[0, labels[i]]
        assert votes[i].item() == pytest.approx(share, abs=1e-5)
    loss = -votes[votes > 0].log().mean()
    torch.testing.assert_close(leave_one_out_knn(z, labels, 7, 0.2), loss)


def two_modes(seed=0):
    """Class 0 in two tight groups on opposite sides, class 1 in a third place: (24, 5)."""
    modes = torch.eye(5)[[0, 1, 2]] * torch.tensor([[1.0], [1.0], [1.0]])
    modes[1] = -modes[0]
    z = modes.repeat_interleave(8, 0) + 0.05 * torch.randn(24, 5, generator=torch.Generator().manual_seed(seed))
    return z.requires_grad_(), torch.tensor([0] * 16 + [1] * 8)


@given(seed=st.integers(0, 99), k=st.integers(1, 7), temperature=st.floats(0.02, 5.0))
def test_a_pure_but_spread_class_costs_nothing_here_and_something_in_supcon(seed, k, temperature):
    z, labels = two_modes(seed)
    loss = leave_one_out_knn(z, labels, k, temperature)
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.item() == 0.0 and not grad.any()
    (pull,) = torch.autograd.grad(supcon(z, labels, temperature), z)
    assert pull.norm(dim=1).min() > 1e-4
    # The first neighbour of another class ends the peace.
    (grad,) = torch.autograd.grad(leave_one_out_knn(z, labels, 12, temperature), z)
    assert grad.abs().sum() > 0


def test_all_neighbours_is_the_soft_nearest_neighbour_loss():
    z, labels = torch.randn(9, 4), torch.arange(9) % 3
    similar = (F.normalize(z) @ F.normalize(z).T / 0.2).exp() * (1 - torch.eye(9))
    same = (labels[:, None] == labels).float()
    expected = -((similar * same).sum(1) / similar.sum(1)).log().mean()
    torch.testing.assert_close(leave_one_out_knn(z, labels, None, 0.2), expected)
    torch.testing.assert_close(leave_one_out_knn(z, labels, 8, 0.2), expected)


def test_one_neighbour_teaches_nothing():
    z = torch.randn(20, 4, requires_grad=True)
    loss = leave_one_out_knn(z, torch.arange(20) % 2, 1)
    loss.backward()
    assert loss.item() == 0.0 and not z.grad.any()


@pytest.mark.parametrize("k", [2, 3, 6])
def test_one_mate_among_k_equals_costs_ln_k(k):
    rows = torch.eye(8)
    memory = rows[1 : k + 1]  # all at a right angle to row 0
    labels = torch.arange(k)
    loss = leave_one_out_knn(rows[:1], torch.tensor([0]), k, memory=memory, memory_labels=labels)
    assert loss.item() == pytest.approx(math.log(k), rel=1e-5)


def test_collapsed_embeddings_cost_the_share_of_the_class():
    labels = torch.tensor([0, 0, 0, 0, 1, 1])
    loss = leave_one_out_knn(torch.ones(6, 3), labels, None).item()
    assert loss == pytest.approx(-(4 * math.log(3 / 5) + 2 * math.log(1 / 5)) / 6, rel=1e-5)


def test_what_lies_beyond_the_k_nearest_does_not_count():
    z, labels = torch.rand(5, 3), torch.tensor([0, 1, 0, 1, 0])
    near, far = torch.cat([z, z]) + 0.1 * torch.rand(10, 3), -torch.ones(1, 3)  # cosines above 0, and below
    names = labels.repeat(2)

    def loss(k, memory, memory_labels):
        return leave_one_out_knn(z, labels, k, 0.5, memory=memory, memory_labels=memory_labels)

    more, more_names = torch.cat([near, far]), torch.cat([names, torch.tensor([0])])
    torch.testing.assert_close(loss(3, more, more_names), loss(3, near, names), rtol=0, atol=0)
    assert not torch.isclose(loss(None, more, more_names), loss(None, near, names))


@given(seed=st.integers(0, 99), copies=st.integers(1, 3))
def test_copies_of_the_own_image_change_nothing(seed, copies):
    generator = torch.Generator().manual_seed(seed)
    z, memory = torch.randn(6, 4, generator=generator), torch.randn(15, 4, generator=generator)
    labels, names, ids, marks = torch.arange(6) % 3, torch.arange(15) % 3, torch.arange(6), torch.arange(15) + 10
    before = leave_one_out_knn(z, labels, 4, memory=memory, memory_labels=names, ids=ids, memory_ids=marks)
    for i in range(6):  # rows of image i in the memory concern row i alone, and it does not see them
        more = torch.cat([memory, z[i : i + 1].repeat(copies, 1)])
        after = leave_one_out_knn(
            z[i : i + 1], labels[i : i + 1], 4, memory=more, ids=ids[i : i + 1],
            memory_labels=torch.cat([names, labels[i : i + 1].repeat(copies)]),
            memory_ids=torch.cat([marks, ids[i : i + 1].repeat(copies)]),
        )  # fmt: skip
        alone = leave_one_out_knn(z[i : i + 1], labels[i : i + 1], 4, memory=memory, memory_labels=names)
        torch.testing.assert_close(after, alone)
    assert torch.isfinite(before)


@given(num=st.integers(3, 9), dim=st.integers(2, 6), seed=st.integers(0, 99))
def test_invariances(num, dim, seed):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(num, dim, generator=generator, dtype=torch.float64)
    labels = torch.arange(num) % 2
    order = torch.randperm(num, generator=generator)
    lengths = torch.rand(num, 1, generator=generator, dtype=torch.float64) * 100 + 1e-3
    rotation = torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]
    for loss in (supcon, lambda *inputs: leave_one_out_knn(*inputs, k=3, missing="add")):
        value = loss(z, labels)
        for other in (loss(z[order], labels[order]), loss(z * lengths, labels), loss(z @ rotation, labels),
                      loss(z, 7 - labels)):  # fmt: skip
            torch.testing.assert_close(other, value)


def test_gradient_is_the_closed_form():
    """On similarities: w - [same class] w / p inside the neighbourhood, 0 outside."""
    memory, names = torch.eye(6, dtype=torch.float64), torch.tensor([0, 1, 0, 1, 1, 0])
    z = torch.tensor([[0.9, 0.8, 0.7, 0.6, 0.2, 0.1]], dtype=torch.float64)
    bank = memory.clone().requires_grad_()
    leave_one_out_knn(z, torch.tensor([0]), 4, 0.5, memory=bank, memory_labels=names).backward()
    similar = (F.normalize(z)[0] / 0.5)[:4]
    weight, same = similar.softmax(0), names[:4] == 0
    expected = (weight - same * weight / weight[same].sum()) / 0.5
    # cosine with the unit row e_j moves with the other entries of memory row j as z does; its own entry only rescales
    for j in range(6):
        direction = F.normalize(z)[0].clone()
        direction[j] = 0
        wanted = direction * (expected[j] if j < 4 else 0.0)
        torch.testing.assert_close(bank.grad[j], wanted, rtol=1e-6, atol=1e-9)


def test_gradients_equal_finite_differences():
    z = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    memory = torch.randn(8, 3, dtype=torch.float64, requires_grad=True)
    labels, names = torch.arange(6) % 2, torch.arange(8) % 2
    assert torch.autograd.gradcheck(lambda a: supcon(a, labels, 0.3), z)
    assert torch.autograd.gradcheck(lambda a: leave_one_out_knn(a, labels, 3, 0.3), z)
    assert torch.autograd.gradcheck(
        lambda a, b: leave_one_out_knn(a, labels, 2, 0.3, memory=b, memory_labels=names, missing="add"), (z, memory)
    )


def test_rows_without_a_mate():
    z = torch.randn(4, 3, requires_grad=True)
    alone = torch.arange(4)
    for loss in (supcon(z, alone), leave_one_out_knn(z, alone, 2), leave_one_out_knn(z, alone, 2, missing="add")):
        (grad,) = torch.autograd.grad(loss, z)
        assert loss.item() == 0.0 and not grad.any()
    assert not leave_one_out_votes(z, alone, 2).any()
    everyone_is_one_image = leave_one_out_knn(z, torch.zeros(4).long(), 2, ids=torch.zeros(4).long())
    assert everyone_is_one_image.item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_and_autocast(dtype):
    z, labels = (torch.randn(12, 8) * 5).to(dtype), torch.arange(12) % 3
    for loss in (supcon, leave_one_out_knn):
        value = loss(z.requires_grad_(), labels)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, loss(z.detach().float(), labels))
        value.backward()
        assert z.grad.dtype == dtype and torch.isfinite(z.grad).all()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(loss(z.detach().float(), labels), value, rtol=0, atol=0)


@pytest.mark.parametrize("size", [0.0, 1e-30, 1e20])
def test_zero_rows_and_extreme_lengths_stay_finite(size):
    z = torch.randn(8, 4)
    z[1] *= size
    for loss in (supcon, leave_one_out_knn):
        value = loss(z.clone().requires_grad_(), torch.arange(8) % 2, temperature=0.01)
        assert torch.isfinite(value)


Z, LABELS = torch.randn(4, 3), torch.tensor([0, 1, 0, 1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"z": torch.randn(4)}, ValueError, "z: expected 2 dimensions"),
        ({"z": torch.randn(4, 0)}, ValueError, "z: expected at least one row"),
        ({"z": torch.full((4, 3), math.nan)}, ValueError, "z: expected finite"),
        ({"z": torch.ones(4, 3).long()}, TypeError, "z: expected a floating-point"),
        ({"labels": LABELS[:3]}, ValueError, "labels: expected 4, one a row of z, got 3"),
        ({"labels": LABELS.float()}, TypeError, "labels: expected whole numbers"),
        ({"labels": LABELS[:, None]}, ValueError, "labels: expected 1 dim"),
        ({"temperature": 0.0}, ValueError, "temperature"),
    ],
)
@pytest.mark.parametrize("loss", [supcon, leave_one_out_knn, leave_one_out_votes])
def test_bad_input_is_refused(loss, arguments, error, message):
    with pytest.raises(error, match=message):
        loss(**({"z": Z, "labels": LABELS} | arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "k: expected at least 1 neighbour, or None for all, got 0"),
        ({"missing": "skip"}, "missing: expected one of drop, add, got 'skip'"),
        ({"memory": Z}, "memory_labels: expected one label a row of memory"),
        ({"memory_labels": LABELS}, "memory: expected rows for memory_labels"),
        ({"memory": Z[:, :2], "memory_labels": LABELS}, "memory: expected width 3, got 2"),
        ({"memory": Z, "memory_labels": LABELS, "ids": LABELS}, "ids, memory_ids: expected both or neither"),
        ({"ids": LABELS[:2]}, "ids: expected 4"),
    ],
)
def test_bad_neighbourhoods_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        leave_one_out_knn(Z, LABELS, **arguments)


def test_supcon_needs_two_rows():
    with pytest.raises(ValueError, match="at least two rows, got 1"):
        supcon(Z[:1], LABELS[:1])
