"""A LoRA: for each module of a model that it changes, two thin matrices whose product is added to the weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, Source, check_task_type
from soft_prompt_explorer.analysis.adapters.tensors import FLOATS, Tensors
from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.notebook import Shown
from soft_prompt_explorer.analysis.core.words import counted

MAX_AXES = 5  # a convolution over three
MAX_PRODUCT = 2**24  # values of A where it is a product of two, which may be far larger than both


@dataclass(frozen=True, eq=False)
class LoraFactors:
    """The update of one module, ΔW = scaling · B A (Hu et al. 2021, section 4.1). The factors stay in the file until they are asked for.

               in                r         in
          ┌──────────┐         ┌──┐   ┌──────────┐
      out │    ΔW    │ = s · B │  │ · │    A     │ r
          └──────────┘     out └──┘   └──────────┘

    A convolution's kernel counts as inputs: A is (r, in · height · width).

    Attributes
    ----------
    scaling : α/r, or α/√r with rank-stabilised LoRA; 1 where the file does not hold α (then the adapter's notes say so).
    rank, in_features, out_features : r, in and out.
    experts, expert : of how many experts the file's factors hold the update, and whose this is; A's rows stand expert by expert, B's columns rank by rank.
    """

    tensors: Tensors
    a_name: str
    b_name: str
    scaling: float
    mid_name: str | None = None
    magnitude_name: str | None = None
    experts: int = 1
    expert: int = 0

    def __post_init__(self) -> None:
        a, b = self.tensors.entries[self.a_name], self.tensors.entries[self.b_name]
        middle = a if self.mid_name is None else self.tensors.entries[self.mid_name]
        for name in filter(None, (self.a_name, self.b_name, self.mid_name, self.magnitude_name)):
            if self.tensors.entries[name].dtype not in FLOATS:
                raise AdapterError(
                    f"The factor {name} in {self.tensors.path} holds {self.tensors.entries[name].dtype}; those of a LoRA are floating-point numbers of "
                    "16, 32 or 64 bits, so convert it first."
                )
        fits = 2 <= len(a.shape) <= MAX_AXES and 2 <= len(b.shape) <= MAX_AXES and a.values and b.values
        if self.mid_name is not None:
            mid = middle.shape
            fits = fits and len(mid) == 4 and middle.values and mid[1] == a.shape[0] and a.values == a.shape[0] * a.shape[1]
            fits = fits and self.rank * self.in_features <= MAX_PRODUCT
        fits = fits and b.values == b.shape[0] * middle.shape[0]
        if not fits:
            raise AdapterError(
                f"The factors {self.a_name} {a.shape} and {self.b_name} {b.shape} in {self.tensors.path} do not multiply; the file is damaged, or its "
                "training was sharded and not gathered."
            )

    @property
    def A(self) -> np.ndarray:  # noqa: N802 - the paper's letter
        """(r, in) float32, or float64 where the file holds it."""
        a = self._read(self.a_name)
        if self.mid_name is None:
            return a.reshape(self.experts, self.rank, -1)[self.expert]
        # A convolution in three factors (LyCORIS): the middle one carries the kernel.
        mid = self._read(self.mid_name)
        return np.einsum("rqhw,qi->rihw", mid, a.reshape(len(a), -1)).reshape(len(mid), -1)

    @property
    def B(self) -> np.ndarray:  # noqa: N802 - the paper's letter
        """(out, r) float32, or float64 where the file holds it."""
        b = self._read(self.b_name)
        return b.reshape(len(b), -1)[:, self.expert :: self.experts]

    @property
    def is_known(self) -> bool:
        """Whether everything that the update is made of is at hand."""
        return True

    @property
    def is_whole(self) -> bool:
        """Whether the update is no product of thin matrices."""
        return False

    def made(self) -> LoraFactors:
        """The same, ready to be asked for its factors and sizes again and again."""
        return self

    def both(self) -> tuple[np.ndarray, np.ndarray]:
        """A and B, each as above."""
        return self.A, self.B

    @property
    def magnitude(self) -> np.ndarray | None:
        """(out,) of weight-decomposed LoRA (Liu et al. 2024), whose update is not B A alone; else None."""
        return None if self.magnitude_name is None else self._read(self.magnitude_name).ravel()

    @property
    def rank(self) -> int:
        return self.tensors.entries[self.mid_name or self.a_name].shape[0] // self.experts

    @property
    def in_features(self) -> int:
        a = self.tensors.entries[self.a_name]
        kernel = 1 if self.mid_name is None else int(np.prod(self.tensors.entries[self.mid_name].shape[2:]))
        return a.values // a.shape[0] * kernel

    @property
    def out_features(self) -> int:
        return self.tensors.entries[self.b_name].shape[0]

    @property
    def dtype(self) -> str:
        return self.tensors.entries[self.a_name].dtype

    def _read(self, name: str) -> np.ndarray:
        array = self.tensors[name]
        return array if array.dtype == np.float64 else array.astype(np.float32, copy=False)


@dataclass(frozen=True, eq=False)
class LoraAdapter(Shown):
    """A LoRA as read from a file.

    Attributes
    ----------
    modules : the factors by the path of the module that they change, as the file spells it.
    base_model, metadata, source : as those of `SoftPrompt`.
    method : `LORA`, and its variations: `LORA (DoRA, rsLoRA)`; of another type, whose ΔW is computed (see `delta.py`), PEFT's word for it: `LOHA`.
    saved_modules : what else was trained and is kept whole (PEFT's modules_to_save, biases): listed, not analysed.
    textual_inversion : the new words that came in the same file, or the trained rows of the model's own; or None.
    others : the other adapters of a file that holds several, by their names in it.
    notes : what a person should know about the file.
    family : who names its tensors so, for instance `PEFT` or `kohya`.
    """

    name: str
    modules: Mapping[str, LoraFactors] = field(repr=False)  # hundreds
    base_model: str | None
    method: str
    source: Source
    metadata: dict = field(default_factory=dict, repr=False)
    saved_modules: tuple[str, ...] = ()
    textual_inversion: SoftPrompt | None = None
    others: Mapping[str, LoraAdapter] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    family: str = "PEFT"

    @property
    def kind(self) -> str:
        """`lora`, or `delta` of another type that changes weights."""
        return "lora" if self.method.startswith("LORA") or self.method == "ADALORA" else "delta"

    @property
    def needs_weights(self) -> bool:
        """Whether an update is made of the base model's weights, which are not at hand (see `analysis.loras.base_weights.with_base`)."""
        return not all(factors.is_known for factors in self.modules.values())

    @property
    def beside_factors(self) -> str | None:
        """What it does to a model beside adding B·A to its modules, as the rest of a sentence that begins with its name; None where nothing such is known of it."""
        if self.saved_modules:
            are, more = ("are", ", …") if len(self.saved_modules) > 1 else ("is", "")
            return f"also holds {counted(len(self.saved_modules), 'tensor')} that {are} kept whole ({self.saved_modules[0][:80]}{more})"
        if self.textual_inversion is not None:
            return "also holds rows of tokens"
        if changes_base_weights(self.metadata):
            return "started from the base weights' own directions, which PEFT takes off those weights when it loads it"
        if self.metadata.get("layer_replication"):
            return "stands in a model some layers of which were repeated (layer_replication)"
        if self.metadata.get("alora_invocation_tokens"):
            return "acts only behind the tokens that invoke it (aLoRA)"
        return None

    @property
    def read_from(self) -> Source:
        """Where it was read from."""
        return self.source

    def __len__(self) -> int:
        return len(self.modules)

    def named(self, adapter: str | None) -> LoraAdapter:
        """One of several adapters of the file; the one that is read first when None.

        Raises
        ------
        AdapterError
            It holds none of that name.
        """
        if adapter is None:
            return self
        if adapter not in self.others:
            held = (
                f"beside the first it holds {', '.join(name[:60] for name in list(self.others)[:8])}"
                if self.others
                else "it holds only one"
            )
            raise AdapterError(f"{self.name} holds no other adapter {adapter[:60]!r}; {held}.")
        return self.others[adapter]

    def check_is_causal(self) -> None:
        """Refuse to put it into a causal model where it was trained for another kind.

        Raises
        ------
        AdapterError
        """
        check_task_type(self.metadata.get("task_type"), self.name, self.metadata.get("auto_mapping"))


def changes_base_weights(config: Mapping) -> bool:
    """Whether PEFT changes the base model's weights where it makes a LoRA of such a config, so that B·A is not the change alone."""
    start = config.get("init_lora_weights")
    return isinstance(start, str) and start.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga"))
