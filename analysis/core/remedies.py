"""What to give so that refused input is taken, in the words of each face: the command line's option, a page's field, a function's argument."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Literal

Face = Literal["command line", "page", "library"]
_face: ContextVar[Face] = ContextVar("face", default="library")


@contextmanager
def speaking(face: Face) -> Iterator[None]:
    """Word remedies for this face, in this thread and as long as the block lasts."""
    before = _face.set(face)
    try:
        yield
    finally:
        _face.reset(before)


@dataclass(frozen=True)
class Remedy:
    """The end of a sentence that says what to give. As a string it is worded for the face that is spoken to (see `speaking`).

    Attributes
    ----------
    option : on the command line.
    field : on a page.
    argument : to a function.
    """

    option: str
    field: str
    argument: str

    def __str__(self) -> str:
        return {"command line": self.option, "page": self.field, "library": self.argument}[_face.get()]

    def then(self, more: str) -> Remedy:
        """The same, and after it these words."""
        return Remedy(self.option + more, self.field + more, self.argument + more)


MODEL = Remedy("with --model", "in the field “Model”", "to `load_vocabulary` or `load_model`")
MODEL_TOO = Remedy("give --model", "name the model on the prompt’s page", "give `model`")
BASE = Remedy("with --base", "to the command line's `spectra`", "as `model`")
WEIGHTS = Remedy("with --base", "to the command line's `spectra`", "to `with_base`")
BESIDE = Remedy("by spectra with --base", "by the command line's `spectra` beside a base model", "by `with_base`")
INITIAL = Remedy("with --initial", "as initial.safetensors beside the prompt's file", "with `recover_initial` or `split_from`")
INITIAL_OR_RECOVERED = replace(INITIAL, option="with --initial FILE, or --initial recover")
TEMPLATE = Remedy("give its own with --template '…{input}…'", "type its own above", "give its own as `template`")
START_AT_RANDOM = Remedy("--init random", "start from “random”", "`init='random'`")
INIT_TEXT = Remedy("with --init-text", "in the field “Text to start from”", "as `init_text`")
SCORES_TOO = Remedy("--validate-every too", "a number in the field “Score every … steps” too", "`validate_every` too")
NO_PATIENCE = Remedy("leave --patience out", "set the field “Stop early after” to 0", "leave `patience` out")
TARGETS = Remedy(
    "with --targets, or give --targets all-linear",
    "in the field “Modules to change in every layer”, or write all-linear there",
    "as `targets`, or give `('all-linear',)`",
)
DTYPE = Remedy("with --dtype", "in the field “Numbers”", "as `dtype`")
DEVICE = Remedy("with --device", "in the field “Device”", "as `device`")
ANOTHER_METHOD = Remedy(
    "train with --method lora, or a smaller --model",
    "train with the method lora, or a smaller model",
    "train with `method='lora'`, or a smaller `model`",
)
SMALLER = Remedy(
    "give --dtype bfloat16, or a smaller --model",
    "choose bfloat16 under “Numbers”, or a smaller model",
    "give `dtype='bfloat16'`, or a smaller model",
)
NO_CHECKPOINTING = Remedy("leave --checkpointing out", "train by another method", "leave `checkpointing` out")
NO_SCHEDULER = Remedy("leave --scheduler out", "leave the scheduler out", "leave `scheduler` out")
BATCHED = Remedy(
    "that `spe batch 'adapters/*' --out FOLDER` has written", "that the command line's `spe batch` has written", "that `batch` has written"
)
TRAIN_KNOWN = Remedy("`python -m trained_prompts benchmark --make` trains it", "the command line trains it", "`known_truth.make` trains it")


def ask_about(name: str) -> Remedy:
    """What asks the model about the prompt of a run."""
    return Remedy(
        f"`python -m trained_prompts behaviour {name}` does it", "its page does it, under *Behaviour*", "`kept_behaviour.test` does it"
    )
