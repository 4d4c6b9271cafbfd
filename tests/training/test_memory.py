"""Claims about freed memory: under glibc the process keeps it, so that working on it again costs no page faults."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sslcore.training.memory import keep_freed_memory

FAULTS = """
import resource, sys, torch
if sys.argv[1] == "keep":
    from sslcore.training.memory import keep_freed_memory
    keep_freed_memory()
def work():
    kept = [torch.ones(1_000_000) for _ in range(20)]
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True, timeout=120)
    return int(done.stdout)


@pytest.mark.skipif(not keep_freed_memory(), reason="this C library has no such switch")
def test_the_second_time_costs_no_page_faults():
    assert faults("keep") < faults("leave") / 10


@pytest.mark.parametrize("platform", ["win32", "darwin"])
def test_elsewhere_nothing_happens(monkeypatch, platform):
    monkeypatch.setattr(sys, "platform", platform)
    assert keep_freed_memory.__wrapped__() is False
