"""How much memory this process has, and had."""

from __future__ import annotations

import resource
from pathlib import Path


def memory_now() -> int:
    """This process's resident memory, bytes."""
    import psutil

    return psutil.Process().memory_info().rss


def peak_memory() -> int:
    """The most resident memory that this process ever had, bytes, as the operating system counted it."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux hands ru_maxrss down from the parent, and this it does not
        return 1024 * next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS
