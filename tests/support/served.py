"""A dashboard of the tests' own, served as `make app` serves it."""

import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.places import REPOSITORY
from tests.support.waiting import PATIENCE, wait_until

PATHS = (  # of every page, with what stands below its tabs
    "/",
    "/library",
    "/library?tab=Open+a+file",
    "/library?tab=Collection",
    "/library?tab=Scores",
    *(f"/prompt?prompt=plural-words-1&tab={tab}" for tab in ("What+it+does", "Tokens", "Behaviour", "Try+it", "How+it+was+made")),
    *(f"/lora?lora=sentiment-lora-8&tab={tab}" for tab in ("What+it+does", "Ranks", "Smaller+copy", "Beside+another", "How+it+was+made")),
    "/atlas",
    "/atlas?tab=Compare",
    "/atlas?word=river",
    "/train",
    *(f"/learn?tab={tab}" for tab in ("The+lesson", "Which+readings+hold", "Measures", "Methods", "Findings", "Glossary", "Papers")),
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(address: str) -> bool:
    try:
        urllib.request.urlopen(f"{address}/_stcore/health", timeout=60).close()
    except OSError:
        return False
    return True


@contextmanager
def served(log: Path, **environment: str) -> Iterator[str]:
    """The address of a dashboard that runs as long as the block, what it writes in a file."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "soft_prompt_explorer", "--port", str(port)]
    with log.open("w") as file:
        server = subprocess.Popen(command, cwd=REPOSITORY, env=os.environ | environment, stdout=file, stderr=file)
        try:
            wait_until(lambda: answers(address) or server.poll() is not None)
            assert server.poll() is None, f"the dashboard did not start: {log.read_text()}"
            yield address
        finally:
            server.terminate()
            server.wait(timeout=PATIENCE)
