"""RegNet: a family of convolutional nets whose widths follow one line, with timm's blocks."""

from __future__ import annotations

import math

from torch import nn

from sslcore.backbones.convnets import StagedConvNet
from sslcore.validate import check_positive, require


def regnet_widths(w0: int, wa: float, wm: float, depth: int, group_size: int = 1) -> tuple[list[int], list[int]]:
    """Width and number of blocks of each stage.

        for j in range(depth):
            line  = w0 + wa * j                                        # widths grow linearly with depth ...
            power = round(log(line / w0) / log(wm))                    # ... and are rounded to w0 * wm ** power,
            width[j] = round(w0 * wm ** power / 8) * 8                 # a multiple of 8
        stages = runs of equal width; each width is rounded to a multiple of group_size

    w0: first width, a multiple of 8. wa >= 0: slope. wm > 1: factor between stages. depth: number of blocks.
    Returns (widths, depths), one entry a stage. Raises ValueError for values out of range.
    Source: Radosavovic et al. 2020, "Designing network design spaces", equations 2-4.
    """
    require(w0 >= 8 and w0 % 8 == 0, f"w0: expected a multiple of 8, got {w0}")
    require(0 <= wa < math.inf, f"wa: expected a finite slope >= 0, got {wa}")
    require(1 < wm < math.inf, f"wm: expected a finite factor above 1, got {wm}")
    check_positive("depth", depth)
    check_positive("group_size", group_size)
    powers = [round(math.log((w0 + wa * j) / w0) / math.log(wm)) for j in range(depth)]
    blocks = [round(w0 * wm**power / 8) * 8 for power in powers]
    stages = sorted(set(blocks))
    widths = [round(width / min(group_size, width)) * min(group_size, width) for width in stages]
    return widths, [blocks.count(width) for width in stages]


def regnet(
    in_chans: int = 3,
    w0: int = 16,
    wa: float = 16.0,
    wm: float = 2.0,
    depth: int = 2,
    group_size: int = 8,
    se_ratio: float = 0.25,
    stem_width: int | None = None,
) -> StagedConvNet:
    """RegNetY (RegNetX with se_ratio=0) as a StagedConvNet: a stem and one stage a width, each of stride 2.

    Blocks are timm's: 1 x 1, grouped 3 x 3, squeeze-and-excitation, 1 x 1, beside a shortcut. w0, wa, wm, depth,
    group_size: see regnet_widths; published nets have four stages, and the defaults, for small images, two of width
    16 and 32 at stride 8. stem_width: None takes half of w0. Source: Radosavovic et al. 2020, arXiv 2003.13678.
    """
    from timm.layers import ConvNormAct
    from timm.models.regnet import Bottleneck, RegStage

    check_positive("in_chans", in_chans)
    require(0 <= se_ratio <= 1, f"se_ratio: expected a share in [0, 1], got {se_ratio}")
    widths, depths = regnet_widths(w0, wa, wm, depth, group_size)
    before = w0 // 2 if stem_width is None else stem_width
    stages = [ConvNormAct(in_chans, before, 3, stride=2)]
    for width, blocks in zip(widths, depths, strict=True):
        shape = {"in_chs": before, "out_chs": width, "stride": 2, "dilation": 1, "depth": blocks}
        stages.append(RegStage(**shape, block_fn=Bottleneck, group_size=group_size, se_ratio=se_ratio))
        before = width
    for module in (module for stage in stages for module in stage.modules()):
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return StagedConvNet(stages, in_chans, before, 2 ** len(stages), "regnet")
