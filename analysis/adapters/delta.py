"""The update of a weight that other tuners than LoRA make: ΔW computed from their tensors, and from the weight itself where it multiplies that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from soft_prompt_explorer.analysis.adapters.lora import LoraFactors
from soft_prompt_explorer.analysis.adapters.tensors import FLOATS, Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.remedies import WEIGHTS

MAX_DELTA = 2**27  # values of a ΔW, or of one of its factors: twice the largest of a model of 70 billion parameters but its vocabulary's

# What numpy and torch raise of tensors that do not go together.
_BROKEN = (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, MemoryError)

Pair = tuple[np.ndarray, np.ndarray]  # A (r, in) and B (out, r), float64; ΔW = B A
Numbers = Callable[[str, float], float]  # of a config, by its key and what PEFT takes where it is missing


@dataclass(frozen=True, eq=False)
class Parts:
    """The tensors of one module by their part, those that all modules share, and what the config says of them.

    Attributes
    ----------
    names : the tensors' names in the file by their part, for instance `w1_a` of `hada_w1_a`.
    number : a number of the config for this module.
    config : the content of adapter_config.json.
    module : the path of the module.
    count : how many modules the adapter has.
    which : of several updates of one weight, the number of this one.
    """

    tensors: Tensors
    names: Mapping[str, str]
    number: Numbers
    config: dict
    module: str = ""
    count: int = 1
    which: int = 0

    def __contains__(self, part: str) -> bool:
        return part in self.names

    def __call__(self, part: str) -> np.ndarray:
        """The values of a part, float64, or int64 where they are whole numbers.

        Raises
        ------
        AdapterError
            They hold NaN or infinity.
        """
        values = self.tensors[self.names[part]]
        if self.tensors.entries[self.names[part]].dtype not in FLOATS:
            return values.astype(np.int64)
        if not np.isfinite(values).all():
            raise AdapterError(
                f"The tensor {self.names[part]} in {self.tensors.path} holds NaN or infinity ({int((~np.isfinite(values)).sum())} values); the training diverged or the "
                "file is damaged."
            )
        return values.astype(np.float64)

    def shape(self, part: str) -> tuple[int, ...]:
        return self.tensors.entries[self.names[part]].shape

    def says(self, key: str, default: object = None) -> object:
        """What the config says of the whole adapter."""
        return self.config.get(key, default)


class Weight(NamedTuple):
    """The weight that a module changes, (out, in) float64, and its bias or None."""

    values: np.ndarray
    bias: np.ndarray | None


class Recipe(NamedTuple):
    """How the ΔW of one type comes of its tensors.

    Attributes
    ----------
    title : the type, as people write it.
    prefix : which the names of its tensors have after the module's path, in PEFT.
    shape : (out, in, r) of the factors, by the tensors' shapes alone; None where only the weight tells.
    make : A and B; of those that need the weight, from it too.
    needs_weight : whether ΔW depends on the weight, or on its shape where the file does not tell that.
    lacks : why it needs the weight, in a sentence that names the type.
    updates : how many updates of one weight there are; one where None.
    says : what a person should know of its ΔW, for a note.
    """

    title: str
    prefix: str
    shape: Callable[[Parts], tuple[int, int, int]] | None
    make: Callable[..., Pair]
    needs_weight: bool = False
    lacks: str = "which is made of the weight that it changes"
    updates: Callable[[Parts], int] | None = None
    says: str = ""


@dataclass(frozen=True, eq=False)
class DeltaFactors(LoraFactors):
    """The update of one module as A and B whose product is the whole ΔW, computed each time that they are asked for; the scaling is in them.

    Of a ΔW that is no product of thin matrices one of the two is the identity.

    Attributes
    ----------
    recipe, parts : how ΔW is made, and of what.
    weight : reads the weight that the module changes; None where it is not at hand.
    """

    recipe: Recipe = field(kw_only=True)
    parts: Parts = field(kw_only=True)
    weight: Callable[[], Weight] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.recipe.shape is None:
            return
        try:
            out, width, rank = self.recipe.shape(self.parts)
        except _BROKEN as error:
            if isinstance(error, AdapterError):
                raise
            raise self._damaged() from error
        if min(out, width, rank) < 1 or max(out, width) * rank > MAX_DELTA:
            raise AdapterError(
                f"The update of {self.parts.module[:100]} in {self.tensors.path} would be {out:,} × {width:,} of rank {rank:,}, which no model has; the file is damaged."
            )

    @property
    def is_known(self) -> bool:
        """Whether everything that ΔW is made of is at hand."""
        return not self.recipe.needs_weight or self.weight is not None

    @property
    def is_whole(self) -> bool:
        """Whether the factors are not thin."""
        return self.rank >= min(self._shape())

    @property
    def A(self) -> np.ndarray:  # noqa: N802 - the paper's letter
        return self.both()[0]

    @property
    def B(self) -> np.ndarray:  # noqa: N802 - the paper's letter
        return self.both()[1]

    def both(self) -> Pair:
        """A (r, in) and B (out, r), float64.

        Raises
        ------
        AdapterError
            The weight is needed and not at hand, or the tensors do not go together or with it.
        """
        try:
            weight = self._weight() if self.recipe.needs_weight else None
            a, b = self.recipe.make(self.parts) if weight is None else self.recipe.make(self.parts, weight)
            shape = self._shape() if weight is None else weight.values.shape
            check_shape((len(b), a.shape[1], b.shape[1]), (*shape, len(a)))
        except _BROKEN as error:
            if isinstance(error, AdapterError):
                raise
            raise self._damaged() from error
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            raise AdapterError(
                f"The update of {self.parts.module[:100]} in {self.tensors.path} is not finite; the training diverged or the file is damaged."
            )
        return a, b

    def made(self) -> DeltaFactors:
        """The same with its factors made once and held, so that whoever asks for them and their sizes again need not wait."""
        a, b = self.both()
        sizes = len(b), a.shape[1], len(a)
        return replace(self, recipe=self.recipe._replace(shape=lambda parts: sizes, make=lambda parts: (a, b), needs_weight=False))

    @property
    def rank(self) -> int:
        return len(self.both()[0]) if self.recipe.shape is None else self.recipe.shape(self.parts)[2]

    @property
    def in_features(self) -> int:
        return self._shape()[1]

    @property
    def out_features(self) -> int:
        return self._shape()[0]

    def _shape(self) -> tuple[int, int]:
        """(out, in)."""
        if self.recipe.shape is not None:
            return self.recipe.shape(self.parts)[:2]
        out, width = self._weight().values.shape
        return out, width

    def _weight(self) -> Weight:
        if self.weight is None:
            raise AdapterError(
                f"The update of {self.parts.module[:100]} is {self.recipe.title}, {self.recipe.lacks}; name the base model",
                remedy=WEIGHTS,
            )
        return self.weight()

    def _damaged(self) -> AdapterError:
        listing = ", ".join(f"{part} {self.parts.shape(part)}" for part in list(self.parts.names)[:4])
        beside = "" if self.weight is None else ", or the base model is another"
        return AdapterError(
            f"The tensors of {self.parts.module[:100]} in {self.tensors.path} ({listing}) do not make an update of {self.recipe.title}; the file is damaged{beside}."
        )


def check_shape(found: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Before something is made of tensors that do not go with the weight: it may be far larger than both.

    Raises
    ------
    ValueError
    """
    if tuple(found) != tuple(expected):
        raise ValueError


def whole(delta: np.ndarray) -> Pair:
    """A ΔW (out, in) as two factors, the smaller one the identity."""
    out, width = delta.shape
    return (delta, np.eye(out)) if out <= width else (np.eye(width), delta)


def whole_shape(out: int, width: int) -> tuple[int, int, int]:
    """The sizes of such a ΔW's factors."""
    return out, width, min(out, width)
