"""No objective makes the host wait for the GPU: torch raises at the first copy or question that would."""

from __future__ import annotations

import pytest
import torch

from sslcore import objectives


def _views(num, dim):
    return torch.randn(2, num, dim, device="cuda", requires_grad=True)


def _masked(num):
    logits = torch.randn(2, num, 16, 64, device="cuda", requires_grad=True)
    mask = torch.zeros(num, 16, dtype=torch.bool, device="cuda")
    mask[:, ::2] = True
    return logits, mask


def _ibot(num):
    logits, mask = _masked(num)
    center = torch.zeros(64, device="cuda")
    return lambda: objectives.ibot_patch_loss(logits[0], logits[1], mask, center)


def _pixels(num):
    images = torch.rand(num, 3, 16, 16, device="cuda")
    pred = torch.randn(num, 8, 48, device="cuda", requires_grad=True)
    mask = _masked(num)[1]
    return lambda: objectives.masked_pixel_loss(pred, images, mask, 4)


def _dino(num):
    student = torch.randn(4, num, 1024, device="cuda", requires_grad=True)
    center = torch.zeros(1024, device="cuda")
    return lambda: objectives.dino_loss(student, student[:2].detach(), center)


def _pair(loss, dim=32):
    def build(num):
        z = _views(num, dim)
        return lambda: loss(*z)

    return build


def _sigreg(num):
    z = _views(num, 32)
    return lambda: objectives.sigreg(z, 64)


OBJECTIVES = {
    "nt_xent": _pair(objectives.nt_xent),
    "nt_xent wide": _pair(objectives.nt_xent, 300),
    "info_nce": _pair(objectives.info_nce),
    "barlow_twins": _pair(lambda a, b: objectives.barlow_twins(a, b).total),
    "vicreg": _pair(lambda a, b: objectives.vicreg(a, b).total),
    "sigreg": _sigreg,
    "dino_loss": _dino,
    "ibot_patch_loss": _ibot,
    "masked_pixel_loss": _pixels,
}


@pytest.mark.gpu
@pytest.mark.parametrize("num", [4, 600])  # the plain forms and the twins
@pytest.mark.parametrize("name", OBJECTIVES)
def test_nothing_waits_for_the_device(name, num):
    call = OBJECTIVES[name](num)
    call().backward()  # kernels are compiled the first time
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        call().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_cases_run(name, monkeypatch):
    """The cases themselves, on the CPU, so that the GPU test does not rot."""
    for function in ("randn", "rand", "zeros"):
        original = getattr(torch, function)
        monkeypatch.setattr(torch, function, lambda *a, _f=original, **k: _f(*a, **{**k, "device": "cpu"}))
    OBJECTIVES[name](4)().backward()
