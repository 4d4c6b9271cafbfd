"""The parts of a vision Mamba: a scan in one direction or several, and the block around it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sslcore.backbones.scan import selective_scan
from sslcore.backbones.scan_matrix import scan_matrix
from sslcore.validate import check_positive


class DirectedScan(nn.Module):
    """What one direction of reading owns: causal convolution, step sizes, what is written and read, decays, skip.

    (Bt, L, D) -> (Bt, L, D). Steps start log-uniform in [0.001, 0.1], decays at -1 .. -state_dim. A_log is kept flat:
    optimisers here decay what has two axes, and shrinking A_log would only change how fast states fade.
    """

    def __init__(self, dim: int, state_dim: int = 16, conv_width: int = 4):
        super().__init__()
        self.dim, self.state_dim, self.dt_rank = dim, state_dim, math.ceil(dim / 16)
        self.conv = nn.Conv1d(dim, dim, conv_width, groups=dim, padding=conv_width - 1)
        self.x_proj = nn.Linear(dim, self.dt_rank + 2 * state_dim, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, dim)
        self.A_log = nn.Parameter(torch.empty(dim * state_dim))
        self.D = nn.Parameter(torch.empty(dim))
        self.backend = "auto"
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew, as at the start."""
        for layer in (self.conv, self.x_proj):
            layer.reset_parameters()
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            step = torch.exp(torch.empty(self.dim).uniform_(math.log(1e-3), math.log(0.1)))
            # The inverse of softplus: at an input of zero, softplus(bias) is the step.
            self.dt_proj.bias.copy_(step + torch.log(-torch.expm1(-step)))
            self.A_log.copy_(torch.arange(1, self.state_dim + 1).float().log().repeat(self.dim))
            self.D.fill_(1.0)

    def coefficients(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """x after convolution and SiLU, delta (Bt, L, D), A (D, N), B and C (Bt, L, N): what the scan takes."""
        x = F.silu(self.conv(x.transpose(1, 2))[..., : x.shape[1]].transpose(1, 2))
        step, B, C = self.x_proj(x).split((self.dt_rank, self.state_dim, self.state_dim), dim=-1)
        return x, F.softplus(self.dt_proj(step)), -self.A_log.view(self.dim, -1).float().exp(), B, C

    def forward(self, x: Tensor) -> Tensor:
        return selective_scan(*self.coefficients(x), self.D, backend=self.backend)


class MambaMixer(nn.Module):
    """One gate, one way in and one out, and a scan for each direction; their outputs are averaged.

    (Bt, L, D) -> (Bt, L, D), no widening in between ("expand" is 1 in ARM). orders: None for the order given, or one
    permutation (L,) a direction; its output is put back in place. Source: arXiv 2312.00752, figure 3; 2406.07537.
    """

    def __init__(self, dim: int, state_dim: int = 16, conv_width: int = 4, directions: int = 1):
        super().__init__()
        for name, number in dict(dim=dim, state_dim=state_dim, conv_width=conv_width, directions=directions).items():
            check_positive(name, number)
        self.in_proj = nn.Linear(dim, 2 * dim, bias=False)
        self.scans = nn.ModuleList(DirectedScan(dim, state_dim, conv_width) for _ in range(directions))
        self.out_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, orders: Sequence[Tensor | None] = (None,)) -> Tensor:
        x, gate = self.in_proj(x).chunk(2, dim=-1)
        read = []
        for scan, order in zip(self.scans, orders, strict=True):
            read.append(scan(x) if order is None else scan(x[:, order])[:, order.argsort()])
        mean = read[0] if len(read) == 1 else torch.stack(read).mean(0)
        return self.out_proj(mean * F.silu(gate))

    def hidden_attention(self, x: Tensor, orders: Sequence[Tensor | None] = (None,)) -> Tensor:
        """(Bt, D, L, L): how much of input s is in the scanned output at t, signed, before the gate. Exact; see
        scan_matrix. With several directions the mean of their matrices, rows and columns in the order given."""
        x, total = self.in_proj(x).chunk(2, dim=-1)[0], 0
        for scan, order in zip(self.scans, orders, strict=True):
            _, *coefficients = scan.coefficients(x if order is None else x[:, order])
            matrix = scan_matrix(*coefficients)
            if order is not None:
                back = order.argsort()
                matrix = matrix[:, :, back][:, :, :, back]
            total = total + matrix / len(self.scans)
        return total


class SwiGLU(nn.Module):
    """fc2(SiLU(gate) * value), gate and value from one linear layer of twice the hidden width."""

    def __init__(self, dim: int, hidden_dim: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 2 * hidden_dim)
        self.fc2 = nn.Linear(hidden_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class MambaBlock(nn.Module):
    """x + mixer(norm(x)), then x + SwiGLU(norm(x)) of width floor(8 D / 3): the block of ARM, there called MambaMLP."""

    def __init__(self, dim: int, state_dim: int = 16, conv_width: int = 4, directions: int = 1):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.mixer = MambaMixer(dim, state_dim, conv_width, directions)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = SwiGLU(dim, 8 * dim // 3)

    def forward(self, x: Tensor, orders: Sequence[Tensor | None] = (None,)) -> Tensor:
        x = x + self.mixer(self.norm1(x), orders)
        return x + self.mlp(self.norm2(x))
