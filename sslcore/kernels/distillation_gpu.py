"""Cross-entropy between teachers and students as Triton kernels: each logit is read once forward and once backward.

A program holds one image: all its crops, a block of classes at a time. The teachers' normalisers come from a small
kernel of their own. The order of every sum is fixed, so results repeat.
Its agreement with the plain form is tested on the CPU in Triton's interpreter. Its speed on CUDA has not been measured.
"""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from torch import Tensor

from sslcore.kernels.derivative import first_derivative_only
from sslcore.kernels.distillation import Settings, masses
from sslcore.kernels.optional_triton import HAS_TRITON, jit, tl, triton

TILE = 8192  # values of a tile: 32 for each of the 256 threads of a program
PROGRAMS = 1024  # an image's logits are split over programs until about this many run


@jit
def _teacher_kernel(
    teacher_ptr,  # (T, R, K)
    center_ptr,  # (K,), base 2
    weight_ptr,  # (R,)
    out_ptr,  # (2, splits, T * R): highest and total, base 2
    rows,
    classes,
    length,  # classes of one split
    scale,
    BLOCK: tl.constexpr,
):
    row, split = tl.program_id(0), tl.program_id(1)
    wanted = tl.load(weight_ptr + row % rows) != 0
    begin = split * length
    end = tl.where(wanted, tl.minimum(begin + length, classes), begin)
    highest = tl.full((1,), float("-inf"), tl.float32)
    total = tl.full((1,), 0.0, tl.float32)
    for start in range(begin, end, BLOCK):
        k = start + tl.arange(0, BLOCK)
        logits = tl.load(teacher_ptr + row.to(tl.int64) * classes + k, mask=k < end, other=0.0).to(tl.float32) * scale
        logits = tl.where(k < end, logits - tl.load(center_ptr + k, mask=k < end, other=0.0), float("-inf"))
        higher = tl.maximum(highest, tl.max(logits, axis=0))
        total = total * tl.exp2(highest - higher) + tl.sum(tl.exp2(logits - higher), axis=0)
        highest = higher
    out = out_ptr + split * tl.num_programs(0) + row + tl.arange(0, 1)
    tl.store(out, highest)
    tl.store(out + tl.num_programs(0) * tl.num_programs(1), total)


@jit
def _targets_tile(
    teacher_ptr,
    center_ptr,
    normaliser_ptr,  # (T, R), base 2
    num_teacher,
    row,
    rows,
    crop,
    k,
    classes,
    scale,
    inside,
    SKIP_OWN: tl.constexpr,
):
    """(CROPS, BLOCK): for each student crop the sum of the teachers it is compared with."""
    place = (crop[:, None].to(tl.int64) * rows + row) * classes + k[None, :]
    logits = tl.load(teacher_ptr + place, mask=inside, other=0.0).to(tl.float32) * scale
    center = tl.load(center_ptr + k, mask=k < classes, other=0.0)
    normaliser = tl.load(normaliser_ptr + crop * rows + row, mask=crop < num_teacher, other=0.0)
    own = tl.exp2(tl.where(inside, logits - center[None, :] - normaliser[:, None], float("-inf")))
    total = tl.sum(own, axis=0)[None, :] + tl.zeros_like(own)
    return total - own if SKIP_OWN else total


@jit
def _loss_kernel(
    student_ptr,  # (S, R, K)
    teacher_ptr,  # (T, R, K)
    center_ptr,
    normaliser_ptr,  # (T, R), base 2
    weight_ptr,
    out_ptr,  # (4, splits, S, R): highest, total, product and mass of the split, base 2
    num_student,
    num_teacher,
    rows,
    classes,
    length,
    student_scale,
    teacher_scale,
    SKIP_OWN: tl.constexpr,
    CROPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row, split = tl.program_id(0), tl.program_id(1)
    crop = tl.arange(0, CROPS)
    wanted = tl.load(weight_ptr + row) != 0
    begin = split * length
    end = tl.where(wanted, tl.minimum(begin + length, classes), begin)
    highest = tl.full((CROPS,), float("-inf"), tl.float32)
    total = tl.full((CROPS,), 0.0, tl.float32)
    product = tl.full((CROPS,), 0.0, tl.float32)  # of the targets with (logits - highest): large logits cancel
    mass = tl.full((CROPS,), 0.0, tl.float32)  # of the targets so far
    for start in range(begin, end, BLOCK):
        k = start + tl.arange(0, BLOCK)
        inside = (crop[:, None] < num_teacher) & (k[None, :] < end)
        target = _targets_tile(
            teacher_ptr,
            center_ptr,
            normaliser_ptr,
            num_teacher,
            row,
            rows,
            crop,
            k,
            classes,
            teacher_scale,
            inside,
            SKIP_OWN,
        )
        place = (crop[:, None].to(tl.int64) * rows + row) * classes + k[None, :]
        there = (crop[:, None] < num_student) & (k[None, :] < end)
        logits = tl.load(student_ptr + place, mask=there, other=0.0).to(tl.float32) * student_scale
        counted = k[None, :] < end
        higher = tl.maximum(highest, tl.max(tl.where(counted, logits, float("-inf")), axis=1))
        lower = tl.where(mass > 0, highest - higher, 0.0)  # the first time, highest is minus infinity and mass zero
        total = total * tl.exp2(highest - higher) + tl.sum(
            tl.where(counted, tl.exp2(logits - higher[:, None]), 0.0), axis=1
        )
        product += mass * lower + tl.sum(tl.where(counted, target * (logits - higher[:, None]), 0.0), axis=1)
        mass += tl.sum(target, axis=1)
        highest = higher
    out = out_ptr + (split * num_student + crop) * rows + row
    step = tl.num_programs(1) * num_student * rows
    tl.store(out, highest, mask=crop < num_student)
    tl.store(out + step, total, mask=crop < num_student)
    tl.store(out + 2 * step, product, mask=crop < num_student)
    tl.store(out + 3 * step, mass, mask=crop < num_student)


@jit
def _gradient_kernel(
    student_ptr,
    teacher_ptr,
    center_ptr,
    teacher_normaliser_ptr,
    student_normaliser_ptr,  # (S, R), base 2
    weight_ptr,
    grad_ptr,  # one number, already divided by student_temp
    out_ptr,  # (S, R, K)
    num_student,
    num_teacher,
    rows,
    classes,
    student_scale,
    teacher_scale,
    SKIP_OWN: tl.constexpr,
    CROPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0)
    crop = tl.arange(0, CROPS)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    weight = tl.load(weight_ptr + row)
    end = tl.where(weight != 0, classes, 0)  # rows of weight zero are not read
    inside = (crop[:, None] < num_teacher) & (k[None, :] < end)
    target = _targets_tile(
        teacher_ptr,
        center_ptr,
        teacher_normaliser_ptr,
        num_teacher,
        row,
        rows,
        crop,
        k,
        classes,
        teacher_scale,
        inside,
        SKIP_OWN,
    )
    place = (crop[:, None].to(tl.int64) * rows + row) * classes + k[None, :]
    there = (crop[:, None] < num_student) & (k[None, :] < end)
    logits = tl.load(student_ptr + place, mask=there, other=0.0).to(tl.float32) * student_scale
    normaliser = tl.load(student_normaliser_ptr + crop * rows + row, mask=crop < num_student, other=0.0)
    mass = num_teacher + tl.zeros_like(normaliser)
    if SKIP_OWN:
        mass -= tl.where(crop < num_teacher, 1.0, 0.0)
    result = mass[:, None] * tl.exp2(logits - normaliser[:, None]) - target
    result = tl.where(weight != 0, result * (weight * tl.load(grad_ptr)), 0.0)
    written = (crop[:, None] < num_student) & (k[None, :] < classes)
    tl.store(out_ptr + place, result.to(out_ptr.dtype.element_ty), mask=written)


class _Kernels(torch.autograd.Function):
    @staticmethod
    def forward(ctx, student: Tensor, teacher: Tensor, center: Tensor, weight: Tensor, settings: Settings) -> Tensor:
        (num_student, rows, classes), num_teacher = student.shape, len(teacher)
        scales = [1 / (math.log(2) * temp) for temp in (settings.student_temp, settings.teacher_temp)]
        center = center.float() * scales[1]
        crops = triton.next_power_of_2(max(num_student, num_teacher))
        block = max(16, min(TILE // crops, triton.next_power_of_2(classes)))
        # Few images: several programs share one. Each split but the last is a whole number of tiles.
        per_row = max(1, min(PROGRAMS // rows, triton.cdiv(classes, block)))
        length = triton.cdiv(triton.cdiv(classes, per_row), block) * block
        splits = triton.cdiv(classes, length)
        new = {"device": student.device, "dtype": torch.float32}
        teacher_parts = torch.empty(2, splits, num_teacher, rows, **new)
        student_parts = torch.empty(4, splits, num_student, rows, **new)
        sizes = (num_student, num_teacher, rows, classes)
        tile = {"SKIP_OWN": settings.skip_own, "CROPS": crops, "BLOCK": block, "num_warps": 8}
        with torch.cuda.device(student.device) if student.is_cuda else nullcontext():
            _teacher_kernel[(num_teacher * rows, splits)](
                teacher, center, weight, teacher_parts, rows, classes, length, scales[1], BLOCK=block, num_warps=4
            )
            highest, total = teacher_parts
            top = highest.amax(dim=0)
            teacher_normaliser = top + (total * torch.exp2(highest - top)).sum(dim=0).log2()
            _loss_kernel[(rows, splits)](
                student, teacher, center, teacher_normaliser, weight, student_parts, *sizes, length, *scales, **tile
            )
        highest, total, product, mass = student_parts
        top = highest.amax(dim=0)
        rest = (total * torch.exp2(highest - top)).sum(dim=0).log2()
        product = (product + mass * (highest - top)).sum(dim=0)
        full = masses(num_student, num_teacher, settings.skip_own, student.device)
        ctx.save_for_backward(student, teacher, center, teacher_normaliser, top + rest, weight)
        ctx.sizes, ctx.scales, ctx.tile, ctx.student_temp = sizes, scales, tile, settings.student_temp
        losses = torch.where(weight == 0, 0.0, weight * (full * rest - product))  # rows that were not read hold NaN
        return losses.sum() * math.log(2)

    @staticmethod
    @first_derivative_only
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        student, *others = ctx.saved_tensors
        result = torch.empty_like(student)
        grid = (ctx.sizes[2], triton.cdiv(ctx.sizes[3], ctx.tile["BLOCK"]))
        with torch.cuda.device(student.device) if student.is_cuda else nullcontext():
            _gradient_kernel[grid](
                student, *others, grad / ctx.student_temp, result, *ctx.sizes, *ctx.scales, **ctx.tile
            )
        return result, None, None, None, None


def summed_cross_entropy(
    student: Tensor,
    teacher: Tensor,
    center: Tensor,
    weight: Tensor,
    student_temp: float,
    teacher_temp: float,
    skip_own: bool,
) -> Tensor:
    """Twin of sslcore.kernels.distillation.summed_cross_entropy, which states the arguments, in three Triton kernels.

    Chosen on CUDA where `supports` says so; loses on small logits, where torch launches as few kernels.
    """
    inputs = [x.contiguous() for x in (student, teacher.detach(), center.detach(), weight.float())]
    return _Kernels.apply(*inputs, Settings(student_temp, teacher_temp, skip_own))


def supports(student: Tensor, teacher: Tensor, center: Tensor) -> bool:
    """Whether summed_cross_entropy takes these: at most 32 bits a number, at most 64 crops, on an NVIDIA GPU."""
    narrow = {student.dtype, teacher.dtype, center.dtype} <= {torch.float32, torch.float16, torch.bfloat16}
    few = max(len(student), len(teacher)) <= 64
    return HAS_TRITON and student.is_cuda and torch.version.hip is None and narrow and few
