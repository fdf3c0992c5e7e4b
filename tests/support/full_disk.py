"""A disk without room, as a process sees it."""

import resource
from contextlib import contextmanager


@contextmanager
def files_limited_to(size: int):
    """As on a full disk, writing past `size` bytes of a file fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
