"""A module that is imported late, and in several threads."""

import subprocess
import sys

from soft_prompt_explorer.analysis.core.late import Late
from tests.support.places import REPOSITORY

HALF_IMPORTED = """
import sys, threading, time
from soft_prompt_explorer.analysis.core.late import whole_torch
threading.Thread(target=whole_torch, daemon=True).start()
while "torch" not in sys.modules:
    time.sleep(0.001)
half = not hasattr(sys.modules["torch"], "Tensor")
whole_torch()
from scipy.stats import false_discovery_control
print(half, hasattr(sys.modules["torch"], "Tensor"), false_discovery_control([0.5]))
"""


def test_a_late_module_is_imported_when_something_of_it_is_asked_for():
    assert Late("fractions").Fraction(1, 2) == 0.5


def test_whoever_comes_while_torch_is_half_imported_waits_for_the_whole():
    ended = subprocess.run([sys.executable, "-c", HALF_IMPORTED], cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert ended.stdout.split() == ["True", "True", "[0.5]"]
