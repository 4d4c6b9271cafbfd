"""Every Triton kernel's parity tests, in Triton's interpreter on the CPU.

It has to be switched on before Triton is imported, hence a process of its own; one for all, because starting it is most
of the cost.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FILES = {"test_similarity.py": 70, "test_sigreg.py": 6, "test_distillation.py": 13}  # and how many tests at least


@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="the tests run in this process already")
def test_kernels_in_the_interpreter():
    pytest.importorskip("triton", reason="Triton is not built for this platform")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-p", "no:randomly", "-vv", "-k", "cpu", *files]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-2000:]
    for name, least in FILES.items():
        passed = re.findall(rf"{name}::\S+cpu\S* PASSED", result.stdout)
        assert len(passed) >= least, f"{name}: {len(passed)} tests ran in the interpreter, expected {least}"
