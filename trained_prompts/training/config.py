"""The settings of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from soft_prompt_explorer.analysis.adapters.run_file import MAX_RANK, MAX_STEPS, MAX_TOKENS, OF_METHOD, Init, Method
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.remedies import INIT_TEXT, NO_CHECKPOINTING, NO_PATIENCE, SCORES_TOO
from soft_prompt_explorer.analysis.models.computing import Dtype, chosen
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.tasks.finding import get_task
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.analysis.tasks.task import Task

LEARNING_RATES: dict[Method, float] = {"prompt-tuning": 0.05, "p-tuning": 0.003, "prefix-tuning": 0.01, "lora": 0.001, "full": 3e-5}
WORD_LENGTHS_A_STEP = 0.4  # of prompt tuning, where words are short (see `settling.py`)
FRAMED, MAX_FRAME = "§", 400
_WHERE_CHOSEN = (
    "readable",
    "frames",
    "validate_every",
    "patience",
    "shuffled",
    "template",
    "dtype",
    "accumulate",
    "checkpointing",
)  # told of a run where they are not the usual ones


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that determines a run.

    Attributes
    ----------
    tokens : number of virtual tokens, 1 to 200.
    init : `sample-vocab`, rows of whole words among the vocabulary's first 5,000 ids (byte-pair ids run with frequency); `text`,
        the rows of `init_text`'s tokens, repeated or cut to fit; `random`, normal with the vocabulary's own root mean square.
    rank, alpha, rslora, targets : of LoRA: r; α, 2 r where it is None; whether the scaling is α/√r (Kalajdzievski 2023) instead of α/r; and the names
        of the modules that are changed in every layer, `all-linear` alone for all but the head. None at all are those that PEFT has for the model's family.
    readable : γ, 0 or more, of prompt tuning: how strongly each virtual token is drawn to a word while it learns (see `readable.py`); inf leaves
        only words.
    frames : texts with one § each, of prompt tuning, which stands for the virtual tokens; the example follows. The steps take turns: first the plain use, with
        nothing around the virtual tokens, then each frame. So such a prompt is used as any other.
    steps, batch_size : optimiser steps, and examples in each.
    learning_rate : at the first step; None leaves it to the method and the model (see `settling.py`), and the run says what it was.
    validate_every : score every so many steps on training examples set aside for it; None does not, and trains on all.
    patience : stop after so many such scores in a row without a better one, and keep the best state; None goes on to the end.
    shuffled : None, or the number of a shuffle: the answers of the training examples are dealt out among them anew, so that nothing but the form of an
        answer can be learned. Such a twin is the control for what is read in a prompt (control tasks: Hewitt and Liang 2019, section 2).
    template : how the examples are asked, with `{input}` in it; None is the task's own, and of examples of one's own what that is now.
    dtype, device : what the frozen model is loaded in and where (see `load_model`). What learns and its optimiser are float32 in any case.
    accumulate : a step's examples are read in so many parts, one after the other; the gradient is that of all of them, and the memory that of one part.
    checkpointing : whether each layer is computed once more on the way back, instead of kept (Chen et al. 2016): less memory, the same gradient, about a
        third more time.
    """

    task: str
    model: str = EMBEDDED_MODEL
    method: Method = "prompt-tuning"
    tokens: int = 10
    init: Init = "sample-vocab"
    init_text: str | None = None
    rank: int = 8
    alpha: float | None = None
    rslora: bool = False
    targets: tuple[str, ...] = ()
    steps: int = 150
    batch_size: int = 8
    learning_rate: float | None = None
    seed: int = 0
    readable: float = 0.0
    frames: tuple[str, ...] = ()
    validate_every: int | None = None
    patience: int | None = None
    shuffled: int | None = None
    template: str | None = None
    dtype: Dtype = "auto"
    device: str | None = None
    accumulate: int = 1
    checkpointing: bool = False

    def __post_init__(self) -> None:
        if (
            self.template is not None or self.task not in TASKS
        ):  # how a file's examples are asked may change; a run keeps how it was trained
            object.__setattr__(self, "template", get_task(self.task, self.template).template)
        if self.method not in get_args(Method):
            raise InputError(f"The method {self.method!r} is not known; choose one of {', '.join(get_args(Method))}.")
        alpha = 2.0 * self.rank if self.alpha is None else self.alpha
        object.__setattr__(self, "alpha", alpha)
        if self.init not in get_args(Init):
            raise InputError(f"The initialisation {self.init!r} is not known; choose one of {', '.join(get_args(Init))}.")
        if self.init == "text" and not (self.init_text or "").strip():
            raise InputError("Starting from a text needs the text; give it", remedy=INIT_TEXT)
        if not 1 <= self.tokens <= MAX_TOKENS:
            raise InputError(f"A prompt has 1 to {MAX_TOKENS} virtual tokens, not {self.tokens}.")
        if not 1 <= self.rank <= MAX_RANK:
            raise InputError(f"A LoRA has a rank of 1 to {MAX_RANK}, not {self.rank}.")
        if not (math.isfinite(alpha) and alpha > 0):
            raise InputError(f"LoRA's alpha lies above 0, not at {alpha:g}.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise InputError(f"Training takes 1 to {MAX_STEPS} steps, not {self.steps}.")
        if not 1 <= self.batch_size <= 256:
            raise InputError(f"A batch holds 1 to 256 examples, not {self.batch_size}.")
        object.__setattr__(self, "dtype", chosen(self.dtype))
        if not 1 <= self.accumulate <= self.batch_size:
            raise InputError(f"A batch of {self.batch_size} examples is read in 1 to {self.batch_size} parts, not in {self.accumulate}.")
        if self.checkpointing and self.method == "prefix-tuning":
            raise InputError("Layers that read a prefix's keys and values cannot be computed once more;", remedy=NO_CHECKPOINTING)
        if not 0 <= self.seed < 2**63:
            raise InputError(f"A seed is a whole number from 0, not {self.seed}.")
        rate = self.learning_rate
        if rate is not None and not (math.isfinite(rate) and 0 < rate <= 100):
            raise InputError(f"A learning rate lies above 0 and at most at 100, not at {rate}.")
        if not self.readable >= 0:
            raise InputError(f"The pull towards words is 0 or more, not {self.readable}.")
        if self.readable and self.method != "prompt-tuning":
            raise InputError(f"Only the virtual tokens of prompt-tuning can be drawn to words, not what {self.method} learns.")
        object.__setattr__(self, "frames", tuple(frame.replace("\\n", "\n") for frame in self.frames))
        for frame in self.frames:
            if frame.count(FRAMED) != 1 or len(frame) > MAX_FRAME or "\0" in frame:
                raise InputError(
                    f"A frame is a text of at most {MAX_FRAME} characters in which {FRAMED} stands once, where the virtual tokens go, as in 'Please {FRAMED}.'; this is {frame[:60]!a}."
                )
        if self.frames and self.method != "prompt-tuning":
            raise InputError(f"Only the virtual tokens of prompt-tuning stand in a frame, not what {self.method} learns.")
        if self.validate_every is not None and self.validate_every < 1:
            raise InputError(f"A run is scored every 1 or more steps, not every {self.validate_every}.")
        if self.patience is not None and (self.patience < 1 or self.validate_every is None):
            raise InputError("Stopping early needs a patience of 1 or more scores, and scores while it learns: give", remedy=SCORES_TOO)
        if self.shuffled is not None and not 1 <= self.shuffled < 2**31:
            raise InputError(f"Shuffles of the answers are numbered from 1, not {self.shuffled}.")
        if self.patience is not None and self.method == "full":
            raise InputError("Full fine-tuning cannot go back to its best state, which is a whole model;", remedy=NO_PATIENCE)

    @property
    def first_rate(self) -> float:
        """The learning rate of the first step."""
        assert self.learning_rate is not None  # of settings that are settled
        return self.learning_rate

    def asked_task(self) -> Task:
        """The task with the template that the run is trained with, and asked with ever after."""
        return get_task(self.task, self.template)

    def described(self) -> dict:
        """What determines a run of this method, by name; the settings of other methods are left out."""
        mine = OF_METHOD[self.method]
        others = {name for names in OF_METHOD.values() for name in names if name not in mine}
        others |= {"device"} | {name for name in _WHERE_CHOSEN if getattr(self, name) == getattr(TrainingConfig, name)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items() if name not in others}
