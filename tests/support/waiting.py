"""Waiting for what must come, as long as a busy machine may need."""

import os
import time
from collections.abc import Callable

# Seconds that a test waits for what must come: a busy machine is slow, and no reason to fail.
PATIENCE = int(os.environ.get("PATIENCE", 600))


def wait_until(holds: Callable[[], object]) -> None:
    """Wait until this is true; a failure where it never is."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.05)
