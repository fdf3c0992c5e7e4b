"""A module that is imported late, and in several threads."""

import ast
import subprocess
import sys

import pytest

from soft_prompt_explorer.analysis.core.late import Late
from tests.support.places import REPOSITORY

HALF_IMPORTED = """
import sys, threading, time
from soft_prompt_explorer.analysis.core.late import apart_from_torch, whole_torch
threading.Thread(target=whole_torch, daemon=True).start()
while "torch" not in sys.modules:
    time.sleep(0.001)
half = not hasattr(sys.modules["torch"], "Tensor")
with apart_from_torch():
    from scipy.stats import false_discovery_control
    print(half, hasattr(sys.modules["torch"], "Tensor"), false_discovery_control([0.5]))
"""
APART = """
import sys, threading, time
from soft_prompt_explorer.analysis.core.late import Late, apart_from_torch, whole_torch
came, torch = [], Late("torch")

def wanted(kind):
    with apart_from_torch():
        time.sleep(0.2)
        came.append((kind, torch.Tensor.__name__))

with apart_from_torch():
    another = threading.Thread(target=whole_torch)
    another.start()
    time.sleep(0.5)
    print("torch" in sys.modules)  # it waits for this thread
another.join()
threads = [threading.Thread(target=wanted, args=(i,)) for i in range(3)]  # none of them waits for another
for each in threads:
    each.start()
for each in threads:
    each.join()
print(hasattr(sys.modules["torch"], "Tensor"), len(came))
"""
IN_EACH_OTHERS_WAY = """
import sys, threading, time
from soft_prompt_explorer.analysis.core import late
late.PATIENCE = 0.5
held = threading.Lock()

def importing():
    with held:
        late.whole_torch()

with late.apart_from_torch():
    thread = threading.Thread(target=importing)
    thread.start()
    while not held.locked(): time.sleep(0.001)
    with held:  # not before the other one has torch, which waits for this block
        print("torch" in sys.modules)
"""


def told_by(script: str) -> list[str]:
    """What a fresh Python, into which nobody has imported torch, prints."""
    return subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, check=True, capture_output=True, text=True, timeout=300
    ).stdout.split()


def test_a_late_module_is_imported_when_something_of_it_is_asked_for():
    assert Late("fractions").Fraction(1, 2) == 0.5


def test_whoever_comes_while_torch_is_half_imported_waits_for_the_whole():
    assert told_by(HALF_IMPORTED) == ["True", "True", "[0.5]"]


def test_nobody_begins_to_import_torch_while_another_thread_may_be_in_scipy():
    assert told_by(APART) == ["False", "True", "3"]


def test_who_wants_torch_inside_gets_it_though_others_do_as_well():
    script = APART.replace("another.start()", "pass").replace("another.join()", "pass")
    assert told_by(script) == ["False", "True", "3"]


def test_who_asks_for_a_device_waits_for_scipy_too():
    script = APART.replace("target=whole_torch", "target=lambda: device_of('cpu')")
    script = script.replace("came, torch", "from soft_prompt_explorer.analysis.models.computing import device_of\ncame, torch")
    assert told_by(script) == ["False", "True", "3"]


def test_nobody_waits_for_a_torch_that_is_there():
    script = "import torch" + IN_EACH_OTHERS_WAY.replace("late.PATIENCE = 0.5", "late.PATIENCE = 500").replace(
        "while not held.locked(): time.sleep(0.001)", "thread.join()"
    )
    assert told_by(script) == ["True"]


def test_two_threads_that_wait_for_each_other_do_so_for_a_moment_only():
    assert told_by(IN_EACH_OTHERS_WAY) == ["True"]


TO_THEIR_END = """for each in threads:
    each.start()
for each in threads:
    each.join()
print(len(failed))
"""
FOUR_AT_ONCE = (
    """
import threading
from contextlib import {guard}
together, failed = threading.Barrier(4), []

def importing(what):
    together.wait()
    try:
        with one_at_a_time():
            exec(what)
    except ImportError as error:
        failed.append(str(error))

wanted = ["from transformers import AutoTokenizer", "from transformers import AutoModelForCausalLM", "from peft import LoraConfig", "from transformers import DynamicCache"]
threads = [threading.Thread(target=importing, args=(what,)) for what in wanted]
"""
    + TO_THEIR_END
)


@pytest.mark.slow
def test_threads_that_begin_at_two_ends_of_a_circle_of_modules_do_not_find_them_half_made():
    plain = FOUR_AT_ONCE.format(guard="nullcontext as one_at_a_time")
    guarded = plain.replace("from contextlib import nullcontext as", "from soft_prompt_explorer.analysis.core.late import")
    assert any(int(told_by(plain)[0]) for _ in range(5))  # else there is nothing to guard against any more
    assert int(told_by(guarded)[0]) == 0


# Somebody asks a model in the moment in which the server makes ready what is slow to import.
READY_MEANWHILE = (
    """
import sys, threading, time
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.app import serve
serve.FIRST, serve.A_LOOK, failed = (), 0, []
serve.FIRST_PAGE_DRAWN.set()
threading.excepthook = lambda told: failed.append(str(told.exc_value))

def asked():
    while "peft" not in sys.modules and "transformers" not in sys.modules:
        time.sleep(0.0001)
    with one_at_a_time():
        from transformers import AutoTokenizer, AutoModelForCausalLM

threads = [threading.Thread(target=each) for each in (serve._make_ready, asked)]
"""
    + TO_THEIR_END
)


@pytest.mark.slow
def test_who_asks_a_model_while_the_server_makes_ready_finds_nothing_half_made():
    assert told_by(READY_MEANWHILE) == ["0"]


def test_whatever_is_imported_of_transformers_or_peft_within_a_function_is_imported_one_at_a_time():
    bare = []
    for room in ("analysis", "trained_prompts", "app"):
        for path in sorted((REPOSITORY / room).rglob("*.py")):
            if path.name != "callback.py":  # for whoever has imported transformers
                bare += [f"{path.name}:{line}" for line in _bare_imports(ast.parse(path.read_text(encoding="utf-8")), False)]
    assert not bare


def _bare_imports(node: ast.AST, guarded: bool):
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.ImportFrom | ast.Import) and not guarded:
            names = [child.module or ""] if isinstance(child, ast.ImportFrom) else [each.name for each in child.names]
            if any(name.partition(".")[0] in ("transformers", "peft") for name in names):
                yield child.lineno
        yield from _bare_imports(child, guarded or (isinstance(child, ast.With) and "one_at_a_time" in ast.unparse(child.items[0])))
