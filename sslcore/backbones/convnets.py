"""Convolutional backbones: ResNet-18 with a small-image stem, and a three-layer net for quick CPU runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslcore.backbones.sparse import Stage, Visibility, sparse_pass
from sslcore.backbones.tokens import Tokens, refuse_attention
from sslcore.validate import check_float, check_positive, check_rank, require, unknown


class StagedConvNet(nn.Module):
    """A chain of convolutional stages read out as Tokens: the last map is the patch grid, its mean the descriptor.

    forward takes float images (B, C, H, W) of any size the stages accept. return_layers gives every stage's map as
    (B, h_l * w_l, D_l): unlike in a transformer, sizes differ. Asking for attention raises ValueError.
    mask: (B, N) bool over the patch grid, True = hidden. Hidden pixels then change nothing: see `sparse`. Hidden patch
    tokens are 0, and the descriptor is the mean of the visible ones. The sides must be multiples of patch_size.
    """

    num_prefix_tokens = 0

    def __init__(self, stages: Sequence[nn.Module], in_chans: int, embed_dim: int, patch_size: int, name: str):
        super().__init__()
        self.stages = nn.ModuleList(Stage(*stage) if type(stage) is nn.Sequential else stage for stage in stages)
        self.in_chans, self.embed_dim, self.patch_size, self.name = in_chans, embed_dim, patch_size, name

    def reset_parameters(self) -> None:
        """Draw the convolutions anew, as at the start; other layers reset themselves."""
        self.apply(_draw_convolution)

    def forward(
        self,
        x: Tensor,
        return_layers: bool = False,
        return_attention: bool | Sequence[int] = False,
        mask: Tensor | None = None,
    ) -> Tokens:
        check_rank("x", x, 4)
        check_float("x", x)
        require(
            x.shape[0] >= 1 and x.shape[1] == self.in_chans,
            f"x: expected (B >= 1, {self.in_chans}, H, W), got shape {tuple(x.shape)}",
        )
        refuse_attention(return_attention, self.name)
        visibility = None if mask is None else self._visibility(x, mask)
        if visibility is not None:
            x = visibility.hide(x)
        # Channels-last convolutions are faster on CPUs and on tensor cores; the layout carries through all stages.
        # One channel needs the reshape: both layouts then share their memory and torch would take the other one.
        if self.in_chans == 1:
            x = x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
        else:
            x = x.contiguous(memory_format=torch.channels_last)
        layers = []
        for stage in self.stages:
            if visibility is None:
                x = stage(x)
            else:  # what is no Stage has layers without a sparse form, and that is said
                x = stage(x, visibility) if isinstance(stage, Stage) else sparse_pass(stage, x, visibility)
            if return_layers:
                layers.append(x.flatten(2).transpose(1, 2))
        patch_tokens = x.flatten(2).transpose(1, 2)
        if mask is None:
            descriptor = patch_tokens.mean(dim=1)
        else:
            descriptor = patch_tokens.sum(dim=1) / (~mask).sum(dim=1, keepdim=True).clamp(min=1)
        return Tokens(
            cls_token=descriptor,
            patch_tokens=patch_tokens,
            grid=(x.shape[2], x.shape[3]),
            layers=layers if return_layers else None,
        )

    def _visibility(self, x: Tensor, mask: Tensor) -> Visibility:
        sides = tuple(x.shape[2:])
        require(
            all(side % self.patch_size == 0 for side in sides),
            f"mask: expected sides that are multiples of the patch size {self.patch_size}, got images of {sides}",
        )
        return Visibility(mask, len(x), (sides[0] // self.patch_size, sides[1] // self.patch_size))


def _draw_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def small_convnet(
    in_chans: int = 1,
    widths: Sequence[int] = (32, 64, 128),
    norm: str | None = "batch",
    slope: float = 0.0,
    strides: Sequence[int] | None = None,
) -> StagedConvNet:
    """3x3 convolutions with a norm and ReLU, one per width, of stride 2; the effective stride is then 2^len(widths).

    28 x 28 images give a 4 x 4 grid, 64 x 64 an 8 x 8 grid. norm: "batch", or None for convolutions with a bias and no
    norm, as energy-based models need. slope: of the leaky ReLU below 0. strides: one a width, instead of 2 everywhere.
    Raises ValueError for an empty or non-positive width, strides that are not one a width, or an unknown norm.
    """
    strides = [2] * len(widths) if strides is None else list(strides)
    require(
        len(strides) == len(widths) and all(stride >= 1 for stride in strides),
        f"strides: expected {len(widths)} whole numbers of at least 1, one a width, got {strides}",
    )
    require(len(widths) >= 1, "widths: expected at least one layer, got none")
    if norm not in ("batch", None):
        unknown("norm", norm, ("batch", "None"))
    for width in (in_chans, *widths):
        check_positive("in_chans and widths", width)
    stages, channels = [], in_chans
    for width, stride in zip(widths, strides, strict=True):
        convolution = nn.Conv2d(channels, width, 3, stride=stride, padding=1, bias=norm is None)
        _draw_convolution(convolution)
        act = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
        stages.append(nn.Sequential(convolution, *([nn.BatchNorm2d(width)] if norm else []), act))
        channels = width
    return StagedConvNet(stages, in_chans, channels, math.prod(strides), "small_convnet")


def resnet18(in_chans: int = 3, cifar_stem: bool = True, width: int = 64) -> StagedConvNet:
    """torchvision's ResNet-18 without its classifier, as five stages (stem and four residual stages).

    cifar_stem: first convolution 3 x 3 with stride 1 and no pooling, effective stride 8 instead of 32 (SimCLR's
    small-image setting). width: channels of the first stage; embed_dim = 8 * width. Source: arXiv 1512.03385.
    """
    from torchvision.models import resnet
    from torchvision.models.resnet import BasicBlock

    check_positive("in_chans", in_chans)
    check_positive("width", width)
    net = resnet.ResNet(BasicBlock, [2, 2, 2, 2])
    if width != 64:
        # torchvision fixes the width of basic blocks; its own stage builder takes any.
        net.inplanes, net.bn1 = width, nn.BatchNorm2d(width)
        for index in range(4):
            stage = net._make_layer(BasicBlock, width * 2**index, 2, stride=1 if index == 0 else 2)
            setattr(net, f"layer{index + 1}", stage)
    kernel, stride, padding = (3, 1, 1) if cifar_stem else (7, 2, 3)
    stem = [nn.Conv2d(in_chans, width, kernel, stride, padding, bias=False), net.bn1, net.relu]
    stages = [nn.Sequential(*stem) if cifar_stem else nn.Sequential(*stem, net.maxpool)]
    stages += [net.layer1, net.layer2, net.layer3, net.layer4]
    for stage in stages:
        stage.apply(_draw_convolution)
    return StagedConvNet(stages, in_chans, 8 * width, 8 if cifar_stem else 32, "resnet18")
