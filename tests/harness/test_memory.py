"""What the allocator keeps, seen from a process of its own: the setting cannot be taken back."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

# Big blocks are freed and taken again, with what the kernel had to fault in counted.
PROGRAM = """
import resource, sys
import torch
from harness.environment import keep_freed_memory

kept = keep_freed_memory() if sys.argv[1] == "kept" else None
for _ in range(3):
    torch.ones(8 * 2**20)
    torch.ones(12 * 2**20)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(8 * 2**20)
    torch.ones(12 * 2**20)
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> tuple[str, int]:
    result = subprocess.run([sys.executable, "-c", PROGRAM, how], check=True, capture_output=True, text=True)
    kept, count = result.stdout.split()
    return kept, int(count)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_freed_memory_is_used_again() -> None:
    _, usual = faults("usual")
    kept, fewer = faults("kept")
    assert kept == "True"
    assert fewer < usual / 10
