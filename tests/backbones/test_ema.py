"""Claims about moving averages: the formula, momentum 0 copies, momentum 1 changes nothing, buffers are
copied, no gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sslcore.backbones import Prototypes, ema_copy, small_convnet, update_ema


def pair():
    student, teacher = small_convnet(1, (4, 6)), ema_copy(small_convnet(1, (4, 6)))
    student(torch.randn(3, 1, 8, 8))  # moves the batch-norm statistics
    return teacher, student


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_momentum_zero_copies_everything():
    teacher, student = pair()
    update_ema(teacher, student, 0.0)
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, student.state_dict()[name]), name


def test_momentum_one_changes_nothing():
    teacher, student = pair()
    before = state(teacher)
    update_ema(teacher, student, 1.0)
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@given(momentum=st.floats(0.0, 0.999))
def test_parameters_follow_the_formula_and_buffers_are_copied(momentum):
    teacher, student = pair()
    before, source = state(teacher), state(student)
    update_ema(teacher, student, momentum)
    learned = {name for name, _ in teacher.named_parameters()}
    for name, tensor in teacher.state_dict().items():
        expected = momentum * before[name] + (1 - momentum) * source[name] if name in learned else source[name]
        torch.testing.assert_close(tensor, expected, rtol=1e-5, atol=1e-6)
    for name, tensor in student.state_dict().items():
        assert torch.equal(tensor, source[name])


def test_buffers_may_be_left_to_the_teacher():
    teacher, student = pair()
    before, source = state(teacher), state(student)
    update_ema(teacher, student, 0.5, buffers=False)
    learned = {name for name, _ in teacher.named_parameters()}
    for name, tensor in teacher.state_dict().items():
        if name in learned:
            torch.testing.assert_close(tensor, 0.5 * before[name] + 0.5 * source[name])
        else:
            assert torch.equal(tensor, before[name]), name


def test_the_copy_is_separate_and_frozen():
    student = small_convnet(1, (4,)).train()
    teacher = ema_copy(student)
    assert teacher.training and not any(parameter.requires_grad for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in student.parameters())
    with torch.no_grad():
        next(student.parameters()).zero_()
    assert next(teacher.parameters()).abs().max() > 0


def test_shared_parameters_and_empty_modules_are_fine():
    update_ema(nn.ReLU(), nn.ReLU(), 0.5)
    tied = nn.ModuleList([nn.Linear(2, 2)])
    tied.append(tied[0])
    teacher = ema_copy(tied)
    with torch.no_grad():
        tied[0].weight.add_(1.0)
    before = teacher[0].weight.clone()
    update_ema(teacher, tied, 0.5)
    torch.testing.assert_close(teacher[0].weight, before + 0.5)  # averaged once, not twice


@pytest.mark.parametrize("momentum", [-0.1, 1.1, float("nan")])
def test_momentum_outside_the_unit_interval(momentum):
    with pytest.raises(ValueError, match="momentum"):
        update_ema(*pair(), momentum)


def test_different_modules_are_refused_before_anything_moves():
    with pytest.raises(ValueError, match="only one of them has"):
        update_ema(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), 0.5)
    with pytest.raises(ValueError, match=r"teacher has \(2, 2\), student \(2, 3\)"):
        update_ema(nn.Linear(2, 2), nn.Linear(3, 2), 0.5)
    with pytest.raises(ValueError, match="buffers"):
        teacher, student = Prototypes(2, 2), Prototypes(2, 2)
        student.register_buffer("extra", torch.zeros(()))
        update_ema(teacher, student, 0.5)
