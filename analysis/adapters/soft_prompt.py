"""What every reader of a soft prompt answers, and the checks that all of them make."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from soft_prompt_explorer.analysis.adapters.tensors import FLOATS, Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.notebook import Shown
from soft_prompt_explorer.analysis.core.remedies import MODEL

MAX_TOKENS = 10_000
MAX_PROMPTS = 1_000  # in one file; CoOp has one for each class of ImageNet
DRAWN_TO_WORDS = "readable"  # in the metadata of a prompt that training drew to words: how strongly
MAX_VALUES = 2**24  # 1,000 virtual tokens 16,384 wide: 64 MiB of float32

# What PEFT's task types other than CAUSAL_LM are for.
OTHER_PURPOSES = {
    "SEQ_CLS": "classification by a head",
    "TOKEN_CLS": "classifying tokens by a head",
    "QUESTION_ANS": "marking answers in a text by a head",
    "FEATURE_EXTRACTION": "an encoder's features",
    "SEQ_2_SEQ_LM": "an encoder-decoder",
}

# Classes of transformers that do not write on, by what their names end in.
_OTHER_CLASSES = re.compile(
    r"For(MaskedLM|SequenceClassification|TokenClassification|QuestionAnswering|MultipleChoice|NextSentencePrediction|PreTraining|ImageClassification|CTC)$"
)

Kind = Literal["soft_prompt", "prefix", "adaption_prompt", "queries", "textual_inversion"]


@dataclass(frozen=True)
class Source:
    """Where an adapter was read from.

    Attributes
    ----------
    path : the file or folder that was given.
    format : in words, for instance `PEFT folder, safetensors`.
    sha256 : of the file that holds the tensors; of several, of their digests in the order of their roles.
    dtype : of the tensors in the file.
    tensors : number of tensors in the file.
    checks : (what was checked, what was found) pairs, for the receipt.
    """

    path: Path
    format: str
    sha256: str
    dtype: str
    tensors: int
    checks: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, eq=False)
class SoftPrompt(Shown):
    """A soft prompt: n learned vectors in the space of a model's input embeddings.

    Attributes
    ----------
    embeddings : (n, d) float32.
    initial : (n, d) float32, the values that training started from, or None where they are not at hand.
    base_model : the model it was trained on as the file names it, or None.
    method : how it was trained, in PEFT's words, for instance `PROMPT_TUNING`, or None.
    metadata : what else the file says of itself.
    kind : `soft_prompt`; `textual_inversion`, which stands for new words of an image model's text encoder; `prefix`, whose rows are not
        input embeddings but the keys and values of every layer, one after the other, so that no vocabulary word is near them; or `adaption_prompt`,
        whose rows each layer's attention takes for itself (its `parts` are the layers); or `queries`, which a Q-Former asks an image encoder.
    parts : (name, rows) of the stretches that go to different places, for instance (("encoder", 8), ("decoder", 8)); empty for one stretch.
    task_factors : (t, n, d) float32 or None. Multitask prompt tuning (Wang et al. 2023, section 3.1) trains one prompt for t tasks, and the model
        receives the rows times a task's factors, never the rows as they are.
    notes : what a person should know about the file.
    beside : prompts of the same file for another model, which are not as wide: the words of SDXL's second text encoder.
    """

    name: str
    embeddings: np.ndarray
    initial: np.ndarray | None
    base_model: str | None
    method: str | None
    source: Source | None
    metadata: dict = field(default_factory=dict)
    kind: Kind = "soft_prompt"
    parts: tuple[tuple[str, int], ...] = ()
    task_factors: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    beside: tuple[SoftPrompt, ...] = ()

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def width(self) -> int:
        return self.embeddings.shape[1]

    @property
    def is_embeddings(self) -> bool:
        """Whether the rows are input embeddings, which words can be near to."""
        return self.kind not in ("prefix", "adaption_prompt", "queries")

    @property
    def norms(self) -> np.ndarray:
        """(n,) float64, the Euclidean norms of the rows."""
        return np.linalg.norm(self.embeddings.astype(np.float64), axis=1)

    @property
    def start(self) -> np.ndarray:
        """(n, d) float32, the values that training started from; they must be known."""
        assert self.initial is not None
        return self.initial

    @property
    def read_from(self) -> Source:
        """Where it was read from; it must come from a file."""
        assert self.source is not None
        return self.source

    def at_start(self) -> SoftPrompt:
        """The same prompt before training; its initial values must be known."""
        return replace(self, embeddings=self.start)

    def split(self) -> list[SoftPrompt]:
        """The prompts that a model receives: one for each part or task, named so, or this one alone.

        Returns
        -------
        For an encoder-decoder the encoder's and the decoder's; for several tasks the shared rows and then each task's own. For both, the two
        halves of each. Last those beside it, for another model.
        """
        if self.beside:
            return [part for prompt in (replace(self, beside=()), *self.beside) for part in prompt.split()]
        if self.task_factors is not None:
            shared = replace(self, name=f"{self.name} (shared)", task_factors=None)
            tasks = [
                replace(shared, name=f"{self.name} (task {i})", embeddings=self.embeddings * factors, initial=None)
                for i, factors in enumerate(self.task_factors)
            ]
            return [half for prompt in (shared, *tasks) for half in prompt.split()]
        if not self.parts:
            return [self]
        prompts, start = [], 0
        for part, rows in self.parts:
            stretch = slice(start, start + rows)
            initial = None if self.initial is None else self.initial[stretch]
            prompts.append(replace(self, name=f"{self.name} ({part})", embeddings=self.embeddings[stretch], initial=initial, parts=()))
            start += rows
        return prompts

    def check_is_embeddings(self) -> None:
        """Refuse a prompt whose rows are no input embeddings, which no vocabulary word can be near to.

        Raises
        ------
        AdapterError
        """
        if self.kind == "prefix":
            raise AdapterError(
                f"The prefix {self.name} holds the keys and values of every layer and no input embeddings, so no vocabulary word is near to them; "
                "inspect says what it holds."
            )
        if self.kind == "queries":
            raise AdapterError(
                f"{self.name} holds the queries of a Q-Former or resampler, which ask an image encoder and are no input embeddings of a language model, so no vocabulary word "
                "is near to them; give what the language model receives instead, the projected output for one image."
            )
        if self.kind == "adaption_prompt":
            raise AdapterError(
                f"The LLaMA-Adapter {self.name} holds prompts that each layer's attention takes behind a gate and no input embeddings, so no vocabulary word is "
                "near to them; inspect says what it holds."
            )

    def check_is_causal(self) -> None:
        """Refuse to put the prompt in front of a causal model where it was trained for another kind.

        Raises
        ------
        AdapterError
        """
        check_task_type(self.metadata.get("task_type"), self.name, self.metadata.get("auto_mapping"))

    def check_is_one(self) -> None:
        """Refuse a file of several prompts where one is put in front of a model.

        Raises
        ------
        AdapterError
        """
        parts = self.split()
        if len(parts) > 1 and self.kind != "adaption_prompt":  # whose parts are layers
            raise AdapterError(
                f"The file {self.name} holds {len(parts)} prompts ({', '.join(part.name for part in parts[:4])}), and only a single one can be put in front of a model."
            )

    def check_width(self, width: int, model: str) -> None:
        """Refuse to read the prompt against embeddings that are not as wide.

        Raises
        ------
        AdapterError
            The widths differ, or the rows are no input embeddings.
        """
        self.check_is_embeddings()
        if self.width != width:
            raise AdapterError(
                f"The prompt {self.name} is {self.width} wide and {model}'s embeddings are {width} wide; name the model that it was trained on",
                remedy=MODEL,
            )


def check_task_type(task_type: object, name: str, auto_mapping: object = None) -> None:
    """Refuse an adapter whose config says that it was trained for another purpose than to write on.

    Parameters
    ----------
    task_type, auto_mapping : as PEFT's config has them. Where it has no task type, the mapping holds the class of the model.

    Raises
    ------
    AdapterError
    """
    said = str(task_type or "").upper().rpartition(".")[2]
    trained_in = auto_mapping.get("base_model_class") if isinstance(auto_mapping, dict) and not said else None
    if isinstance(trained_in, str) and _OTHER_CLASSES.search(trained_in[:200]):
        raise AdapterError(
            f"The adapter {name} was trained in a {trained_in[:80]} and a causal model is asked what comes next, so its answers would mean nothing; "
            "ask one trained for CAUSAL_LM."
        )
    if said in OTHER_PURPOSES:
        raise AdapterError(
            f"The adapter {name} was trained for {OTHER_PURPOSES[said]} ({said}) and a causal model is asked what comes next, so its answers would mean nothing; "
            "ask one trained for CAUSAL_LM."
        )


def prompt_rows(tensors: Tensors, name: str, *, what: str = "virtual tokens") -> np.ndarray:
    """A tensor of a file as (n, d) float32: a vector becomes one row, and (1, n, d) loses its first axis.

    Raises
    ------
    AdapterError
        It has another shape, is empty, too large or not of floats, or holds NaN or infinity.
    """
    entry, path = tensors.entries[name], tensors.path
    shape = entry.shape
    if entry.dtype not in FLOATS:
        raise AdapterError(f"The array in {path} holds {entry.dtype}; {what} are floating-point numbers of 16, 32 or 64 bits.")
    if len(shape) == 1:
        shape = (1, *shape)
    elif len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2 or 0 in shape:
        raise AdapterError(f"The array in {path} has the shape {entry.shape}; {what} have the shape (tokens, width), neither of them 0.")
    if shape[0] > MAX_TOKENS or entry.values > MAX_VALUES:
        raise AdapterError(
            f"The array in {path} has the shape {entry.shape} and a soft prompt at most {MAX_TOKENS:,} rows and {MAX_VALUES:,} values; "
            "a vocabulary or a transposed array, perhaps."
        )
    return checked_floats(tensors[name].reshape(shape), path)


def stack_of_prompts(tensors: Tensors, name: str) -> tuple[np.ndarray, int]:
    """A tensor (k, n, d) of a file as the rows of k prompts, (k · n, d) float32, and n.

    Raises
    ------
    AdapterError
        It is too large, empty or not of floats, or holds NaN or infinity.
    """
    entry, path = tensors.entries[name], tensors.path
    if entry.dtype not in FLOATS or 0 in entry.shape or len(entry.shape) != 3:
        raise AdapterError(
            f"The array in {path} holds {entry.dtype} in the shape {entry.shape}; several prompts are floats in the shape (prompts, tokens, width)."
        )
    if entry.shape[0] > MAX_PROMPTS or entry.shape[1] > MAX_TOKENS or entry.values > MAX_VALUES:
        raise AdapterError(
            f"The array in {path} has the shape {entry.shape}, and a stack of prompts at most {MAX_PROMPTS:,} of {MAX_TOKENS:,} rows, {MAX_VALUES:,} values together; "
            "save fewer of them."
        )
    return checked_floats(tensors[name].reshape(-1, entry.shape[2]), path), entry.shape[1]


def checked_floats(array: np.ndarray, path: Path) -> np.ndarray:
    """The array as float32, refused where it holds NaN, infinity or a value that float32 cannot."""
    bad = ~np.isfinite(array)
    if bad.any():
        place = ", ".join(f"{axis} {i}" for axis, i in zip(("row", "column", "layer"), np.argwhere(bad)[0], strict=False))
        raise AdapterError(
            f"The array in {path} holds NaN or infinity ({int(bad.sum())} values, the first in {place}); the training diverged or the file is damaged."
        )
    with np.errstate(over="ignore"):
        result = np.array(array, dtype=np.float32, order="C")
    if not np.isfinite(result).all():
        raise AdapterError(f"The array in {path} holds values beyond the range of float32; the training diverged or the file is damaged.")
    return result


def left_out(tensors: Tensors, used: Collection[str], *, what: str = "left out") -> tuple[str, ...]:
    """A note that names the tensors of a file which are not read, and one that names those without a value; none where all are read."""
    rest = [name for name in tensors if name not in used]
    empty = [name for name in rest if not tensors.entries[name].values]
    full = [name for name in rest if name not in set(empty)]
    notes = []
    for names, are in ((full, what), (empty, "empty, as training with ZeRO-3 leaves what it did not gather")):
        if names:
            shown = ", ".join(f"{name[:80]} {tensors.entries[name].shape}" for name in names[:3]) + (" and more" if len(names) > 3 else "")
            notes.append(
                f"also holds {len(names)} tensor{'s' if len(names) > 1 else ''} that {'are' if len(names) > 1 else 'is'} {are}: {shown}"
            )
    return tuple(notes)


def distinct(prompts: Sequence[SoftPrompt]) -> list[SoftPrompt]:
    """The same prompts under names that tell them apart: the second `x` becomes `x (2)`."""
    taken: dict[str, int] = {}
    result = []
    for prompt in prompts:
        taken[prompt.name] = taken.get(prompt.name, 0) + 1
        result.append(prompt if taken[prompt.name] == 1 else replace(prompt, name=f"{prompt.name} ({taken[prompt.name]})"))
    return result
