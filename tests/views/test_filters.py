"""The embedding-bag path and the matrix path of one filter agree."""

from __future__ import annotations

import torch

from sslcore.views.filters import Taps, dense, separable


def test_sparse_and_dense_paths_agree():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, 3, 9, 13, generator=generator)

    def taps(size, pixels, reach):
        source = torch.randint(0, pixels, (3, size, reach), generator=generator)
        return Taps(source, torch.rand(3, size, reach, generator=generator))

    rows, columns = taps(5, 9, 4), taps(7, 13, 3)
    matrices = torch.einsum("biy,bcyx,bjx->bcij", dense(rows, 9), images, dense(columns, 13))
    filtered = separable(images, rows, columns)
    assert filtered.is_contiguous()
    torch.testing.assert_close(filtered, matrices)
