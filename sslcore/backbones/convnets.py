"""Convolutional backbones: ResNet-18 with a small-image stem, and a three-layer net for quick CPU runs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sslcore.backbones.tokens import Tokens, refuse_attention
from sslcore.validate import check_float, check_positive, check_rank, require, unknown


class StagedConvNet(nn.Module):
    """A chain of convolutional stages read out as Tokens: the last map is the patch grid, its mean the descriptor.

    forward takes float images (B, C, H, W) of any size the stages accept. return_layers gives every stage's map as
    (B, h_l * w_l, D_l): unlike in a transformer, sizes differ. Asking for attention raises ValueError.
    """

    num_prefix_tokens = 0

    def __init__(self, stages: Sequence[nn.Module], in_chans: int, embed_dim: int, patch_size: int, name: str):
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.in_chans, self.embed_dim, self.patch_size, self.name = in_chans, embed_dim, patch_size, name

    def reset_parameters(self) -> None:
        """Draw the convolutions anew, as at the start; other layers reset themselves."""
        self.apply(_draw_convolution)

    def forward(
        self, x: Tensor, return_layers: bool = False, return_attention: bool | Sequence[int] = False
    ) -> Tokens:
        check_rank("x", x, 4)
        check_float("x", x)
        require(
            x.shape[0] >= 1 and x.shape[1] == self.in_chans,
            f"x: expected (B >= 1, {self.in_chans}, H, W), got shape {tuple(x.shape)}",
        )
        refuse_attention(return_attention, self.name)
        # Channels-last convolutions are faster on CPUs and on tensor cores; the layout carries through all stages.
        # One channel needs the reshape: both layouts then share their memory and torch would take the other one.
        if self.in_chans == 1:
            x = x.reshape(x.shape[0], *x.shape[2:], 1).permute(0, 3, 1, 2)
        else:
            x = x.contiguous(memory_format=torch.channels_last)
        layers = []
        for stage in self.stages:
            x = stage(x)
            if return_layers:
                layers.append(x.flatten(2).transpose(1, 2))
        patch_tokens = x.flatten(2).transpose(1, 2)
        return Tokens(
            cls_token=patch_tokens.mean(dim=1),
            patch_tokens=patch_tokens,
            grid=(x.shape[2], x.shape[3]),
            layers=layers if return_layers else None,
        )


def _draw_convolution(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def small_convnet(
    in_chans: int = 1, widths: Sequence[int] = (32, 64, 128), norm: str | None = "batch", slope: float = 0.0
) -> StagedConvNet:
    """3x3 convolutions of stride 2 with a norm and ReLU, one per width; the effective stride is 2^len(widths).

    28 x 28 images give a 4 x 4 grid, 64 x 64 an 8 x 8 grid. norm: "batch", or None for convolutions with a bias and no
    norm, as energy-based models need. slope: of the leaky ReLU below 0. Raises ValueError for an empty or non-positive
    width, or an unknown norm.
    """
    require(len(widths) >= 1, "widths: expected at least one layer, got none")
    if norm not in ("batch", None):
        unknown("norm", norm, ("batch", "None"))
    for width in (in_chans, *widths):
        check_positive("in_chans and widths", width)
    stages, channels = [], in_chans
    for width in widths:
        convolution = nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=norm is None)
        _draw_convolution(convolution)
        act = nn.LeakyReLU(slope, inplace=True) if slope else nn.ReLU(inplace=True)
        stages.append(nn.Sequential(convolution, *([nn.BatchNorm2d(width)] if norm else []), act))
        channels = width
    return StagedConvNet(stages, in_chans, channels, 2 ** len(widths), "small_convnet")


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
