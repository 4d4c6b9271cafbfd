"""Triton where it is installed; without it the kernels stay plain functions that nobody calls.

Windows, macOS and CPU builds of torch have none.
"""

from __future__ import annotations

from importlib.util import find_spec

HAS_TRITON = find_spec("triton") is not None
if HAS_TRITON:
    import triton
    import triton.language as tl

    jit = triton.jit
else:
    triton = tl = None

    def jit(kernel):
        """The kernel as it is."""
        return kernel


__all__ = ["HAS_TRITON", "jit", "tl", "triton"]
