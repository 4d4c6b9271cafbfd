"""Claims about negative_cosine, dino_loss, ibot_patch_loss and update_center (koleo has its own file), one test each.

- They equal loops in NumPy and lightly.
- Equal logits cost ln K; a constant added to the teacher and to its centre, or to every student logit, changes nothing.
- SimSiam and BYOL are affine functions of negative_cosine, between -1 and 1 and between 0 and 8.
- No gradient reaches teacher or centre; patches that are not masked do not count.
- Large logits, small temperatures, zero rows and half precision stay finite.
- Bad shapes, sizes, types, masks, NaN and temperatures are refused.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from lightly.loss import DINOLoss, IBOTPatchLoss, NegativeCosineSimilarity

from sslcore.objectives import dino_loss, ibot_patch_loss, koleo, negative_cosine, update_center


def softmax(x: np.ndarray) -> np.ndarray:
    powers = np.exp(x - x.max())
    return powers / powers.sum()


def cross_entropy(student, teacher, center, student_temp, teacher_temp) -> float:
    target = softmax((teacher.numpy() - center.numpy()) / teacher_temp)
    return float(-(target * np.log(softmax(student.numpy() / student_temp))).sum())


@pytest.mark.parametrize("temps", [(0.1, 0.04), (0.1, 0.1), (1.0, 0.5)])
@pytest.mark.parametrize(("num_student", "num_teacher"), [(2, 1), (2, 2), (5, 2), (6, 3)])
def test_dino_equals_the_loop_and_lightly(num_student, num_teacher, temps):
    student = torch.randn(num_student, 3, 7, dtype=torch.float64) * 0.3
    teacher, center = (
        torch.randn(num_teacher, 3, 7, dtype=torch.float64) * 0.3,
        torch.randn(7, dtype=torch.float64) * 0.1,
    )
    pairs = [
        np.mean([cross_entropy(student[s, b], teacher[t, b], center, *temps) for b in range(3)])
        for t in range(num_teacher)
        for s in range(num_student)
        if s != t
    ]
    loss = dino_loss(student, teacher, center, *temps)
    assert loss.item() == pytest.approx(np.mean(pairs), rel=1e-9)
    reference = DINOLoss(output_dim=7, student_temp=temps[0], teacher_temp=temps[1]).double()
    reference.center.copy_(center)
    assert loss.item() == pytest.approx(reference(list(teacher), list(student)).item(), rel=1e-6)


@pytest.mark.parametrize("temps", [(0.1, 0.04), (0.5, 0.5)])
def test_ibot_equals_the_loop_and_lightly(temps):
    student, teacher = torch.randn(2, 4, 6, 5, dtype=torch.float64) * 0.3
    center = torch.randn(5, dtype=torch.float64) * 0.1
    mask = torch.rand(4, 6) < 0.5
    mask[1] = False  # an image without masked patches counts as zero
    mask[2] = True
    images = []
    for b in range(4):
        hidden = [n for n in range(6) if mask[b, n]]
        total = sum(cross_entropy(student[b, n], teacher[b, n], center, *temps) for n in hidden)
        images.append(total / max(len(hidden), 1))
    loss = ibot_patch_loss(student, teacher, mask, center, *temps)
    assert loss.item() == pytest.approx(np.mean(images), rel=1e-9)
    reference = IBOTPatchLoss(output_dim=5, student_temp=temps[0], teacher_temp=temps[1]).double()
    reference.center.center.copy_(center[None])
    expected = reference(teacher[mask], student[mask], mask.reshape(4, 2, 3))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("num_prototypes", [2, 64, 4096])
def test_equal_logits_cost_the_log_of_k(num_prototypes):
    center = torch.zeros(num_prototypes)
    student, teacher = torch.full((4, 2, num_prototypes), 3.0), torch.full((2, 2, num_prototypes), -1.0)
    assert dino_loss(student, teacher, center).item() == pytest.approx(math.log(num_prototypes), rel=1e-5)
    mask = torch.tensor([[True, False, True]] * 2)
    logits = torch.ones(2, 3, num_prototypes)
    assert ibot_patch_loss(logits, logits, mask, center).item() == pytest.approx(math.log(num_prototypes), rel=1e-5)


@given(shift=st.floats(-50, 50), seed=st.integers(0, 99))
def test_constant_shifts_change_nothing(shift, seed):
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(3, 2, 5, generator=generator, dtype=torch.float64)
    teacher, center = (
        torch.randn(2, 2, 5, generator=generator, dtype=torch.float64),
        torch.zeros(5, dtype=torch.float64),
    )
    value = dino_loss(student, teacher, center)
    torch.testing.assert_close(dino_loss(student, teacher + shift, center + shift), value)
    torch.testing.assert_close(dino_loss(student + shift, teacher, center), value)
    torch.testing.assert_close(dino_loss(student, teacher + shift, center), value)  # softmax forgets it as well
    order = torch.randperm(5, generator=generator)
    torch.testing.assert_close(dino_loss(student[..., order], teacher[..., order], center[order]), value)
    torch.testing.assert_close(dino_loss(student.flip(1), teacher.flip(1), center), value)


def test_perfect_student_pays_the_teacher_entropy():
    teacher, center = torch.randn(1, 4, 6), torch.randn(6)
    q = ((teacher[0] - center) / 0.04).softmax(dim=-1)
    entropy = -(q * q.clamp_min(1e-30).log()).sum(dim=-1).mean()
    student = (teacher - center).expand(2, 4, 6) * 0.1 / 0.04
    assert dino_loss(student, teacher, center).item() == pytest.approx(entropy.item(), rel=1e-4, abs=1e-5)


def test_cross_entropy_is_logsumexp_minus_product():
    student, teacher = torch.randn(3, 4, 9, dtype=torch.float64), torch.randn(1, 4, 9, dtype=torch.float64)
    q, s = (teacher[0] / 0.04).softmax(-1), student[1:] / 0.1
    expected = (torch.logsumexp(s, -1) - (q * s).sum(-1)).mean()
    torch.testing.assert_close(dino_loss(student, teacher, torch.zeros(9, dtype=torch.float64)), expected)


def test_gradients_equal_finite_differences_and_stop_at_the_teacher():
    student = torch.randn(3, 2, 4, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    center = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, False], [True, True], [False, True]])
    assert torch.autograd.gradcheck(lambda s: dino_loss(s, teacher, center, 0.5, 0.3), student)
    patches = torch.randn(3, 2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ibot_patch_loss(s, patches, mask, center, 0.5, 0.3), student)
    (dino_loss(student, teacher, center) + ibot_patch_loss(student[:2], teacher, mask[:2], center)).backward()
    assert teacher.grad is None and center.grad is None and student.grad.abs().sum() > 0


def test_visible_patches_do_not_count():
    student, teacher = torch.randn(2, 3, 5, 4)
    mask = torch.rand(3, 5) < 0.5
    mask[0, 0], mask[0, 1] = True, False
    value = ibot_patch_loss(student, teacher, mask, torch.zeros(4))
    changed = torch.where(mask[..., None], student, student + torch.randn(4))
    torch.testing.assert_close(ibot_patch_loss(changed, teacher, mask, torch.zeros(4)), value, rtol=0, atol=0)
    assert ibot_patch_loss(student + torch.randn(4), teacher, mask, torch.zeros(4)) != value


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_large_logits_do_not_overflow(dtype):
    student, teacher = (torch.randn(2, 3, 2, 8) * 1e4).to(dtype)
    student.requires_grad_()
    mask = torch.ones(3, 2, dtype=torch.bool)
    for loss in (
        dino_loss(student, teacher, torch.zeros(8), 0.01, 0.01),
        ibot_patch_loss(student, teacher, mask, torch.zeros(8), 0.01, 0.01),
    ):
        assert loss.dtype == torch.float32 and torch.isfinite(loss)
        (grad,) = torch.autograd.grad(loss, student)
        assert grad.dtype == dtype and torch.isfinite(grad).all()


def test_autocast_changes_nothing():
    student, teacher, z = torch.randn(3, 4, 9), torch.randn(2, 4, 9), torch.randn(6, 5)
    expected = dino_loss(student, teacher, torch.zeros(9)), koleo(z), negative_cosine(z, z.flip(0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert expected == (dino_loss(student, teacher, torch.zeros(9)), koleo(z), negative_cosine(z, z.flip(0)))


def test_negative_cosine_equals_the_loop_lightly_simsiam_and_byol():
    p0, p1, z0, z1 = torch.randn(4, 6, 5, dtype=torch.float64)
    a, b = p0.numpy(), z1.numpy()
    loop = -np.mean([a[n] @ b[n] / np.sqrt((a[n] @ a[n]) * (b[n] @ b[n])) for n in range(6)])
    assert negative_cosine(p0, z1).item() == pytest.approx(loop, rel=1e-9)
    assert negative_cosine(p0, z1).item() == pytest.approx(NegativeCosineSimilarity()(p0, z1).item(), rel=1e-9)
    simsiam = (negative_cosine(p0, z1) + negative_cosine(p1, z0)) / 2
    byol = sum((F.normalize(p) - F.normalize(z)).square().sum(dim=1).mean() for p, z in ((p0, z1), (p1, z0)))
    assert byol.item() == pytest.approx(4 + 4 * simsiam.item(), rel=1e-9)


def test_negative_cosine_extremes_and_gradient():
    z = torch.randn(5, 3, dtype=torch.float64)
    p = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert negative_cosine(z, 7 * z).item() == pytest.approx(-1) and negative_cosine(z, -z).item() == pytest.approx(1)
    assert torch.autograd.gradcheck(lambda x: negative_cosine(x, z), p)
    grad = torch.autograd.grad(negative_cosine(p, z), p)[0]
    torch.testing.assert_close((grad * p).sum(dim=1), torch.zeros(5, dtype=torch.float64))  # only the direction matters
    zero = torch.zeros(5, 3, requires_grad=True)
    negative_cosine(zero, z.float()).backward()
    assert torch.isfinite(zero.grad).all() and zero.grad.abs().max() <= 1


def test_update_center_is_pure_and_equals_lightly():
    center, logits = torch.randn(5), torch.randn(2, 3, 5, requires_grad=True)
    before = center.clone()
    new = update_center(center, logits, 0.9)
    torch.testing.assert_close(new, 0.9 * before + 0.1 * logits.detach().reshape(6, 5).mean(0))
    assert torch.equal(center, before) and not new.requires_grad
    reference = DINOLoss(output_dim=5, center_momentum=0.9)
    reference.center.copy_(center)
    reference.update_center(logits.detach())
    torch.testing.assert_close(new, reference.center.flatten())
    assert torch.equal(update_center(center, logits, 1.0), center)
    torch.testing.assert_close(update_center(center, logits.half(), 0.0), logits.detach().half().float().mean((0, 1)))


LOGITS, CENTER = torch.randn(2, 3, 4), torch.zeros(4)
BAD_LOGITS = {
    "rank": (LOGITS[0], LOGITS, CENTER),
    "teacher rank": (LOGITS, LOGITS[None], CENTER),
    "center rank": (LOGITS, LOGITS, CENTER[None]),
    "K": (LOGITS, torch.randn(2, 3, 5), CENTER),
    "center K": (LOGITS, LOGITS, torch.zeros(5)),
    "batch": (LOGITS, torch.randn(2, 2, 4), CENTER),
    "empty batch": (torch.randn(2, 0, 4), torch.randn(2, 0, 4), CENTER),
    "no prototypes": (torch.randn(2, 3, 0), torch.randn(2, 3, 0), torch.zeros(0)),
    "NaN": (torch.full((2, 3, 4), math.nan), LOGITS, CENTER),
    "NaN teacher": (LOGITS, torch.full((2, 3, 4), math.nan), CENTER),
}


@pytest.mark.parametrize("case", BAD_LOGITS)
def test_bad_logits_are_refused(case):
    student, teacher, center = BAD_LOGITS[case]
    with pytest.raises(ValueError, match="expected"):
        dino_loss(student, teacher, center)
    with pytest.raises(ValueError, match="expected"):
        ibot_patch_loss(student, teacher, torch.ones(2, 3, dtype=torch.bool), center)


def test_bad_crops_types_and_masks_are_refused():
    with pytest.raises(ValueError, match="S >= T"):
        dino_loss(LOGITS[:1], LOGITS, CENTER)
    with pytest.raises(ValueError, match="pair"):
        dino_loss(LOGITS[:1], LOGITS[:1], CENTER)
    with pytest.raises(TypeError, match="floating"):
        dino_loss(LOGITS.long(), LOGITS, CENTER)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="empty mask"):
        ibot_patch_loss(LOGITS, LOGITS, ~mask, CENTER)
    with pytest.raises(ValueError, match="mask"):
        ibot_patch_loss(LOGITS, LOGITS, mask[:1], CENTER)
    with pytest.raises(TypeError, match="boolean"):
        ibot_patch_loss(LOGITS, LOGITS, mask.float(), CENTER)


@given(temperature=st.one_of(st.floats(max_value=0.0), st.just(math.nan), st.just(math.inf)))
def test_bad_temperatures_are_refused(temperature):
    for kind in ("student_temp", "teacher_temp"):
        with pytest.raises(ValueError, match=kind):
            dino_loss(LOGITS, LOGITS, CENTER, **{kind: temperature})
        with pytest.raises(ValueError, match=kind):
            ibot_patch_loss(LOGITS, LOGITS, torch.ones(2, 3, dtype=torch.bool), CENTER, **{kind: temperature})


@given(shape=st.lists(st.integers(0, 3), min_size=0, max_size=3))
def test_bad_embeddings_are_refused(shape):
    z = torch.randn(shape)
    if len(shape) != 2 or z.numel() == 0:
        with pytest.raises(ValueError, match="expected"):
            negative_cosine(z, z)
    if len(shape) != 2 or shape[0] < 2 or shape[1] < 1:
        with pytest.raises(ValueError, match="expected"):
            koleo(z)


def test_other_bad_input_is_refused():
    z = torch.randn(3, 2)
    for bad, error in ((torch.randn(2, 2), ValueError), (z * math.nan, ValueError), (z.long(), TypeError)):
        with pytest.raises(error, match="expected"):
            negative_cosine(z, bad)
    for bad, error in ((z * math.nan, ValueError), (z.long(), TypeError)):
        with pytest.raises(error, match="expected"):
            koleo(bad)
    for center, logits, momentum in (
        (CENTER, torch.randn(2, 5), 0.9),
        (CENTER, torch.randn(0, 4), 0.9),
        (CENTER, torch.randn(4), 0.9),
        (CENTER, LOGITS * math.inf, 0.9),
        (CENTER, LOGITS, 1.5),
        (CENTER[None], LOGITS, 0.5),
    ):
        with pytest.raises(ValueError, match="expected"):
            update_center(center, logits, momentum)
