"""The weights of a base model as adapters name the modules that they change: each (out, in), whichever way round and under whatever name the model keeps it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soft_prompt_explorer.analysis.adapters import LoraAdapter, LoraFactors
from soft_prompt_explorer.analysis.adapters.delta import DeltaFactors, Weight
from soft_prompt_explorer.analysis.core.errors import InputError, ModelError, NoRoomError
from soft_prompt_explorer.analysis.core.folders import read_json_object
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.core.remedies import BASE
from soft_prompt_explorer.analysis.models.tensor_names import embedding_tensor_name
from soft_prompt_explorer.analysis.models.weights import load_model, prepare_model

if TYPE_CHECKING:
    import torch

# GPT-2 and its kin keep the weights of these modules the other way round (transformers' Conv1D), square ones too.
TURNED_FAMILIES = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer"})
_TURNED = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
_TURNED_EXPERTS = frozenset({"gpt_oss", "aria", "aria_text", "openai_privacy_filter"})
_JOINED = {"gate_up_proj": (("gate_proj", "up_proj"), ("w1", "w3")), "down_proj": (("down_proj",), ("w2",))}
_HEADS = frozenset(
    {"lm_head", "embed_out", "output", "output_projection", "decoder", "generator_lm_head"}
)  # whose weight may be the embeddings' own
_EXPERT = re.compile(r"(?P<owner>.+)\.(?P<expert>\d{1,9})\.(?P<parameter>[^.]+)")
_LAYER = re.compile(r"(?P<before>(?:.*\.)?(?:layers|layer|h))\.(?P<number>\d{1,9})(?P<after>\..+)")


@dataclass(frozen=True, eq=False)
class BaseWeights:
    """A model's tensors by name, each read when it is asked for.

    Attributes
    ----------
    model : its name.
    tensors : the file that holds each, or the tensor itself.
    family : the config's model_type.
    is_tied : whether its head may be its input embeddings.
    """

    model: str
    tensors: Mapping[str, Path | torch.Tensor]
    family: str = ""
    is_tied: bool = True

    def of(self, module: str, factors: LoraFactors, config: dict) -> np.ndarray | None:
        """The weight that a module's update changes, (out, in) float32; None where the model has none of that name and shape.

        Parameters
        ----------
        config : the adapter's.
        """
        if factors.experts > 1:
            return _fitting(self._of_expert(module), factors)
        path = source_of(module, config)
        name = None if path is None else self._name(path)
        if path is None or name is None:
            return None
        weight = _read(self.tensors[name], name)
        if weight.ndim == 2 and (self._is_turned(path, config) or "lora_embedding_" in factors.a_name):
            return _fitting(weight.T, factors)
        return _fitting(weight.reshape(len(weight), -1), factors)

    def whole(self, module: str, config: dict) -> Weight:
        """The weight and bias of a module, (out, in) float64, for what is made of them.

        Raises
        ------
        InputError
            The model has none of that name.
        """
        path, name = self.place(module, config)
        weight = _read(self.tensors[name], name)
        weight = weight.T if weight.ndim == 2 and self._is_turned(path, config) else weight.reshape(len(weight), -1)
        bias = f"{name.removesuffix('.weight')}.bias"
        return Weight(
            weight.astype(np.float64), _read(self.tensors[bias], bias).ravel().astype(np.float64) if bias in self.tensors else None
        )

    def place(self, module: str, config: dict) -> tuple[str, str]:
        """The path of a module in the model, and the name of its weight's tensor.

        Raises
        ------
        InputError
            The model has none.
        """
        path = source_of(module, config)
        name = None if path is None else self._name(path)
        if path is None or name is None:
            raise InputError(
                f"The model {self.model} has no weight {module[:100]}.weight; name the model that the adapter was trained on", remedy=BASE
            )
        return path, name

    def _name(self, path: str) -> str | None:
        """The tensor of a module's weight: by its own name, without or with the model's own part before it, or the embeddings where they are the head."""
        name = f"{path}.weight"
        for each in (name, name.partition(".")[2], f"model.{name}", f"transformer.{name}", path):
            if each in self.tensors:
                return each
        leaf = path.rpartition(".")[2]
        try:
            embeddings = embedding_tensor_name(list(self.tensors))
        except ModelError:
            return None
        is_embeddings = any(embeddings.endswith(f"{each}.weight") for each in (leaf, "shared")) and leaf.startswith(
            ("embed", "wte", "word")
        )
        return embeddings if (leaf in _HEADS and self.is_tied) or is_embeddings else None

    def _is_turned(self, path: str, config: dict) -> bool:
        """Whether the model keeps a module's weight as (in, out): GPT-2 and its kin, and what PEFT says so of (`fan_in_fan_out`)."""
        leaf = path.rpartition(".")[2]
        return leaf in _TURNED if self.family in TURNED_FAMILIES else config.get("fan_in_fan_out") is True and leaf not in _HEADS

    def _of_expert(self, module: str) -> np.ndarray | None:
        """One of a parameter that holds the weights of several, or the experts' own, as most models' files still keep them."""
        match = _EXPERT.fullmatch(module)
        if match is None:
            return None
        name = f"{match['owner']}.{match['parameter']}"
        if name not in self.tensors:
            return self._of_one_expert(match["owner"], match["expert"], match["parameter"])
        weights = _read(self.tensors[name], name)
        if weights.ndim != 3 or int(match["expert"]) >= len(weights):
            return None
        weight = weights[int(match["expert"])]
        return weight.T if self.family in _TURNED_EXPERTS else weight

    def _of_one_expert(self, owner: str, expert: str, parameter: str) -> np.ndarray | None:
        """The weights that transformers joins into one parameter as it loads a file, (out, in)."""
        for place in (owner, owner.replace("mlp.experts", "block_sparse_moe.experts")):
            for leaves in _JOINED.get(parameter, ()):
                names = [f"{place}.{expert}.{leaf}.weight" for leaf in leaves]
                if all(name in self.tensors for name in names):
                    return np.concatenate([_read(self.tensors[name], name) for name in names])
        return None


def base_weights(model: str, *, report: Report = no_report) -> BaseWeights:
    """The weights of a model by its name.

    Raises
    ------
    InputError
        The model cannot be had.
    """
    try:
        folder = prepare_model(model, report=report)
    except NoRoomError:
        loaded = load_model(model, device="cpu", report=report)[0]
        text = loaded.config.get_text_config()
        return BaseWeights(model, dict(loaded.state_dict()), str(text.model_type), bool(getattr(text, "tie_word_embeddings", True)))
    config = read_json_object(folder / "config.json", ModelError) if (folder / "config.json").is_file() else {}
    return BaseWeights(
        model, _tensor_files(folder), str(config.get("model_type", "")), config.get("tie_word_embeddings", True) is not False
    )


def with_base(adapter: LoraAdapter, model: str, *, report: Report = no_report) -> LoraAdapter:
    """The adapter with the weights that its updates are made of, where they are made of any; each is read when it is asked for.

    Raises
    ------
    InputError
        The model cannot be had, or has no such module.
    """
    if not adapter.needs_weights:
        return adapter
    weights = base_weights(model, report=report)
    modules: dict[str, LoraFactors] = {}
    for path, factors in adapter.modules.items():
        if isinstance(factors, DeltaFactors) and not factors.is_known:
            weights.place(path, adapter.metadata)  # refused now, not half-way
            factors = replace(factors, weight=partial(weights.whole, path, adapter.metadata))
        modules[path] = factors
    return replace(adapter, modules=modules)


def source_of(module: str, config: dict) -> str | None:
    """The path of a module in the model before PEFT's `layer_replication`, which lists the ranges of layers that stand one after the other; None where none fits.

    >>> source_of("model.layers.3.mlp", {"layer_replication": [[0, 2], [1, 3]]})
    'model.layers.2.mlp'
    """
    listed = config.get("layer_replication")
    match = _LAYER.fullmatch(module)
    if not listed or match is None:
        return module
    number = int(match["number"])
    for each in listed if isinstance(listed, list) else []:
        if not (isinstance(each, list) and len(each) == 2 and all(type(end) is int for end in each) and 0 <= each[0] <= each[1]):
            return None
        if number < each[1] - each[0]:
            return f"{match['before']}.{each[0] + number}{match['after']}"
        number -= each[1] - each[0]
    return None


def _fitting(weight: np.ndarray | None, factors: LoraFactors) -> np.ndarray | None:
    """The weight as the update is shaped, turned where only that fits; None where neither does."""
    shape = (factors.out_features, factors.in_features)
    if weight is None or weight.ndim != 2:
        return None
    if weight.shape == shape:
        return np.ascontiguousarray(weight)
    return np.ascontiguousarray(weight.T) if weight.shape[::-1] == shape else None


def _tensor_files(folder: Path) -> dict[str, Path | torch.Tensor]:
    """Which file of a model's folder holds each tensor, by the tensor's name."""
    from safetensors import SafetensorError, safe_open

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        weight_map = read_json_object(index, ModelError).get("weight_map") or {}
        return {name: folder / Path(file).name for name, file in weight_map.items()}
    found: dict[str, Path | torch.Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="np") as file:
                found |= dict.fromkeys(file.keys(), path)
        except SafetensorError as error:
            raise ModelError(f"The file {path.name} cannot be read as safetensors ({error}).") from error
    return found


def _read(source: Path | torch.Tensor, name: str) -> np.ndarray:
    """One tensor, float32, from its file or from a model in memory."""
    from safetensors import safe_open

    if isinstance(source, Path):
        with safe_open(source, framework="pt") as file:  # torch reads bfloat16, numpy does not
            tensor = file.get_tensor(name)
    else:
        tensor = source
    return tensor.float().numpy()
