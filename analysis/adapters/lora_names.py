"""LoRA, under the names that its trainers give the two factors of a module."""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import regex

from soft_prompt_explorer.analysis.adapters import experts, gguf_lora_file, lora_layouts, textual_inversion, trained_tokens
from soft_prompt_explorer.analysis.adapters.foreign_config import ALPHA, SCALE
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter, LoraFactors, changes_base_weights
from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.soft_prompt import SoftPrompt, left_out
from soft_prompt_explorer.analysis.adapters.tensors import FLOATS
from soft_prompt_explorer.analysis.core.errors import AdapterError


class Naming(NamedTuple):
    """How one trainer names a tensor: the group `module`, and the group `part` where the name tells A from B."""

    family: str
    pattern: re.Pattern


def _naming(family: str, pattern: str) -> Naming:
    return Naming(family, re.compile(pattern))


NAMINGS = (
    _naming("PEFT", r"(?:base_model\.model\.)(?P<module>.+)\.lora_(?P<part>A|B)(?:\.(?!weight$)(?P<adapter>[^.]+))?\.weight"),
    _naming("PEFT", r"(?:base_model\.model\.)?(?P<module>.+)\.lora_embedding_(?P<part>A|B)(?:\.(?P<adapter>[^.]+))?"),
    _naming(
        "PEFT", r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>magnitude)_vector(?:\.(?!weight$)(?P<adapter>[^.]+))?(?:\.weight)?"
    ),
    _naming("PEFT naming", r"(?P<module>.+)\.lora_(?P<part>A|B)(?:\.(?!weight$)(?P<adapter>[^.]+))?\.weight"),
    _naming("kohya", r"(?P<module>.+)\.lora_(?P<part>down|up|mid)\.weight"),
    _naming("kohya", r"(?P<module>.+)\.(?P<part>dora_scale)"),
    _naming("diffusers", r"(?P<module>.+)\.processor\.(?P<leaf>\w+)_lora\.(?P<part>down|up)\.weight"),
    _naming("diffusers", r"(?P<module>.+?)(?:\.lora_linear_layer|\.lora|_lora)\.(?P<part>down|up)\.weight"),
    _naming("XLabs", r"(?P<module>.+_lora\d)\.(?P<part>down|up)\.weight"),
    _naming("cloneofsimo", r"(?P<module>(?:unet|text_encoder|unnamed):\d+):(?P<part>down|up)"),
    _naming("NeMo", r"(?P<module>.*lora\w*_adapter)\.linear_(?P<part>in|out)\.weight"),
    _naming("torchtune", r"(?P<module>.+)\.lora_(?P<part>a|b)\.weight"),
    _naming("torchtune", r"(?P<module>.+)\.(?P<part>magnitude)"),
    _naming("MLX", r"(?P<module>.+)\.lora_(?P<part>a|b)"),
    _naming("MLX", r"(?P<module>.+)\.(?P<part>m)"),
    _naming("llama.cpp", r"(?P<module>.+)\.weight\.lora_(?P<part>A|B)"),
    _naming("AdapterHub", r"(?P<module>.+)\.loras\.(?P<adapter>[^.]+)\.lora_(?P<part>A|B)"),
    _naming("loralib", r"(?P<module>.+)\.lora_(?P<part>A|B)"),
    _naming("kohya", r"(?P<module>.+)\.(?P<part>alpha)"),
)
_PARTS = {"mid": "mid", "magnitude": "magnitude", "dora_scale": "magnitude", "m": "magnitude", "alpha": "alpha"}
_PARTS |= dict.fromkeys(("A", "a", "down", "in"), "A") | dict.fromkeys(("B", "b", "up", "out"), "B")

# Relatives of LoRA whose update is no product of two thin matrices, by a piece of their tensors' names.
RELATIVES = {
    "LoHa": re.compile(r".+\.hada_[wt].*"),
    "LoKr": re.compile(r".+\.lokr_[wt].*"),
    "IA³": re.compile(r".+\.ia3_l.*"),
    "OFT": re.compile(r".+\.b?oft_(?:[rR]|s|blocks|diag).*"),
    "VeRA": re.compile(r".+\.vera_lambda_.*"),
}
_WHOLE = frozenset({"int32", "int64", "I32", "I64"})
MOST_BESIDE = 100  # adapters of one file that are read beside its first
PATTERN_SECONDS = 1.0  # for all the patterns of a config: they are regular expressions from a stranger


class _Match(NamedTuple):
    """A tensor of a LoRA: its name, its module's path, its part, who names it so, and the adapter's name or nothing."""

    tensor: str
    module: str
    part: str
    family: str
    adapter: str


@dataclass
class _Module:
    """The names of one module's tensors by their part."""

    family: str
    parts: dict[str, str]


def reads(opened: Opened) -> bool:
    return has_factors(opened) or bool(_relatives(opened.tensors))


def has_factors(opened: Opened) -> bool:
    """Whether any tensor is a factor of a LoRA, by its name."""
    return lora_layouts.is_list(opened.tensors) or any(match.part in ("A", "B") for match in _matches(opened))


def read(opened: Opened, name: str) -> LoraAdapter:
    """The LoRA; of several in one file `default`, or the first, with the others beside it."""
    opened = lora_layouts.in_order(opened)
    matches = list(_matches(opened))
    first, second = _adapters_in(matches)
    used = {tensor for tensor, *_ in matches}
    rest = _rest(opened, used)
    others = {other: _read_one(opened, f"{name} ({other[:60]})", _of(matches, other), []) for other in second[:MOST_BESIDE]}
    adapter = _read_one(opened, name, [match for match in matches if match.adapter not in second], rest)
    return replace(adapter, others=others, textual_inversion=words_beside(opened, name), notes=(*_second(first, second), *adapter.notes))


def _of(matches: list[_Match], adapter: str) -> list[_Match]:
    return [match for match in matches if match.adapter == adapter]


def _rest(opened: Opened, used: set[str]) -> list[str]:
    """The tensors that belong to no LoRA, and are no rows of words."""
    words = {*textual_inversion.words(opened.tensors), *trained_tokens.tensors_of(opened).values()}
    return [tensor for tensor in opened.tensors if tensor not in used and tensor not in words]


def _read_one(opened: Opened, name: str, matches: list[_Match], rest: list[str]) -> LoraAdapter:
    """The LoRA that these tensors make up."""
    tensors = opened.tensors
    found: dict[str, _Module] = {}
    for tensor, module, part, family, _ in matches:
        found.setdefault(module, _Module(family, {})).parts.setdefault(part, tensor)
        if part in ("A", "B"):
            found[module].family = family
    complete = {path: module for path, module in found.items() if {"A", "B"} <= set(module.parts)}
    halves = [path for path, module in found.items() if len({"A", "B"} & set(module.parts)) == 1]
    if halves or not complete:
        _refuse(opened, halves)

    scaling = _Scaling(opened)
    modules = {}
    for path, parts in sorted(((path, module.parts) for path, module in complete.items()), key=lambda item: natural(item[0])):
        rank = tensors.entries[parts.get("mid", parts["A"])].shape[:1]
        modules[path] = LoraFactors(
            tensors,
            parts["A"],
            parts["B"],
            scaling(path, rank[0] if rank else 0, parts.get("alpha")),
            parts.get("mid"),
            parts.get("magnitude"),
        )
    modules = _by_expert(modules, scaling)
    family, _ = Counter(module.family for module in complete.values()).most_common(1)[0]
    source = opened.source(next(iter(complete.values())).parts["A"], kind=f"LoRA ({family})" if opened.config is None else "")
    return LoraAdapter(
        name,
        modules,
        base_model=base_model(opened),
        method=_method(scaling.config, modules),
        source=source,
        metadata=tensors.metadata if opened.config is None else opened.config,
        saved_modules=tuple(rest),
        notes=(*scaling.notes(), *_of_experts(modules), *_notes(opened, scaling.config, rest)),
        family=family,
    )


def words_beside(opened: Opened, name: str) -> SoftPrompt | None:
    """The new words, or the trained rows of the model's own tokens, that came in the same file."""
    if textual_inversion.words(opened.tensors):
        return textual_inversion.read(opened, f"{name} (words)")
    return trained_tokens.read(opened, f"{name} (tokens)") if trained_tokens.tensors_of(opened) else None


def natural(path: str) -> list[tuple[bool, int, str]]:
    """A key that sorts layer 2 before layer 10."""
    return [(piece.isdecimal(), int(piece) if piece.isdecimal() and len(piece) < 18 else 0, piece) for piece in re.split(r"(\d+)", path)]


def _adapters_in(matches: list[_Match]) -> tuple[str, list[str]]:
    """Of the adapters whose names stand in the tensors' names, the one that is read, `default` where it is there, and the others."""
    names = list(dict.fromkeys(match.adapter for match in matches if match.part in ("A", "B")))
    first = "default" if "default" in names else next(iter(names), "")
    return first, [name for name in names if name != first]


def _matches(opened: Opened) -> Iterator[_Match]:
    """Every tensor that belongs to a LoRA."""
    for tensor in opened.tensors:
        for naming in NAMINGS:
            match = naming.pattern.fullmatch(tensor) if len(tensor) < 1000 else None
            if match is not None and _is_meant(naming, match, opened):
                groups = match.groupdict()
                module = groups["module"] + (f".{groups['leaf']}" if groups.get("leaf") else "")
                yield _Match(tensor, module, _PARTS[groups["part"]], naming.family, groups.get("adapter") or "")
                break


def _is_meant(naming: Naming, match: re.Match, opened: Opened) -> bool:
    """Whether a name that fits is that of a LoRA's tensor: loralib's are AdaLoRA's too, and a magnitude by these short names stands beside factors."""
    module, part = match["module"], match["part"]
    if naming.family == "loralib":
        return f"{module}.lora_E" not in opened.tensors
    return (
        part not in ("m", "magnitude")
        or naming.family == "PEFT"
        or any(f"{module}.lora_a{end}" in opened.tensors for end in ("", ".weight"))
    )


def _by_expert(modules: dict[str, LoraFactors], scaling: _Scaling) -> dict[str, LoraFactors]:
    """The modules with those of PEFT's `target_parameters` split into one an expert, called `module.EXPERT.parameter`."""
    listed = scaling.config.get("target_parameters")
    targets = [target for target in listed if isinstance(target, str) and target] if isinstance(listed, list) else []
    of_experts = {path: factors for path, factors in modules.items() if experts.parameters_of(experts.owner_of(path), targets)}
    names = experts.named(of_experts, targets)
    found = {}
    for path, factors in modules.items():
        split = None
        if path in names:
            owner = experts.owner_of(path)
            at = f"{owner}.{names[path]}"
            split = experts.split(factors, int(scaling.rank_of(at)), partial(scaling, at, alpha_name=None))
        if split is None:
            found[path] = factors
        elif len(split) == 1:  # a parameter of one weight
            found[owner if names[path] == "weight" else at] = split[0]
        else:
            found |= {f"{owner}.{i}.{names[path]}": expert for i, expert in enumerate(split)}
            scaling.forget(path)
    return found


class _Numbers(NamedTuple):
    """What a config says of each module, by its path: α, the rank, and whether α is divided by the rank's root."""

    alpha: Callable[[str], float]
    rank: Callable[[str], float]
    root_of_rank: bool


class _Scaling:
    """The factor of each module's update, from α and the rank, as the file or its config gives them."""

    def __init__(self, opened: Opened) -> None:
        self.opened = opened
        found = _configs_in_metadata(opened.tensors.metadata) if opened.config is None else {"": opened.config}
        self.config = {key: value for config in found.values() for key, value in config.items()}
        self.scale, self.alpha = opened.metadata.get(SCALE), opened.metadata.get(ALPHA, opened.tensors.metadata.get(gguf_lora_file.ALPHA))
        self.rank_differs: list[str] = []
        self.without: list[str] = []
        self._numbers = {
            part: _Numbers(
                by_pattern(config, "alpha_pattern", "lora_alpha", 8, opened),
                by_pattern(config, "rank_pattern", "r", 8, opened),
                bool(config.get("use_rslora")),
            )
            for part, config in found.items()
        }

    def __call__(self, path: str, rank: int, alpha_name: str | None) -> float:
        if isinstance(self.scale, float):
            return self.scale
        alpha, numbers = self.alpha if isinstance(self.alpha, float) else None, self._numbers_of(path)
        if alpha_name is not None:
            entry = self.opened.tensors.entries[alpha_name]
            is_number = entry.values == 1 and entry.dtype in FLOATS | _WHOLE
            alpha = float(self.opened.tensors[alpha_name].reshape(-1)[0]) if is_number else None
        elif numbers is not None:
            alpha = numbers.alpha(path)
            if rank and numbers.rank(path) != rank:
                self.rank_differs.append(path)
        if alpha is None or not math.isfinite(alpha) or rank < 1:
            self.without.append(path)
            return 1.0
        return alpha / math.sqrt(rank) if numbers is not None and numbers.root_of_rank else alpha / rank

    def rank_of(self, path: str) -> float:
        """The rank that the config gives a module; 0 without a config."""
        numbers = self._numbers_of(path)
        return 0 if numbers is None else numbers.rank(path)

    def _numbers_of(self, path: str) -> _Numbers | None:
        """What is said of a module: by the only config, or by that of the model's part which leads its path."""
        return next(iter(self._numbers.values())) if len(self._numbers) == 1 else self._numbers.get(path.partition(".")[0])

    def forget(self, path: str) -> None:
        """What was noted of a path that turned out to be of several experts."""
        self.rank_differs = [each for each in self.rank_differs if each != path]

    def notes(self) -> list[str]:
        notes = []
        if self.without:
            notes.append(f"alpha is not in the file for {_count(self.without)}: the scaling is taken as 1")
        if self.rank_differs:
            notes.append(
                f"another rank than the config's in {_count(self.rank_differs)}, the first {self.rank_differs[0]}: the file's own is used"
            )
        return notes


def _count(paths: list[str]) -> str:
    return f"{len(paths)} module{'s' if len(paths) > 1 else ''}"


def by_pattern(config: dict, patterns_key: str, default_key: str, peft_default: float, opened: Opened) -> Callable[[str], float]:
    """A number for each module: that of the first pattern which its path matches as PEFT's get_pattern_key does, else the default.

    The patterns are regular expressions from a stranger's file, so they are given a time in which to match.
    """
    default = number(config.get(default_key, peft_default), default_key, opened)
    patterns = config.get(patterns_key) or {}
    if not isinstance(patterns, dict) or len(patterns) > 10_000:
        raise AdapterError(
            f"The {patterns_key} of the config in {opened.path} is no object of module names and numbers; save the adapter again."
        )
    compiled, deadline = [], time.perf_counter() + PATTERN_SECONDS

    def matches(pattern, path: str) -> bool:
        return bool(pattern.match(path, timeout=max(deadline - time.perf_counter(), 1e-6)))

    def refused(pattern: str) -> AdapterError:
        return AdapterError(
            f"The {patterns_key} of the config in {opened.path} holds {pattern[:60]!r}, which is no pattern that can be matched in time; correct it."
        )

    for pattern, value in patterns.items():
        try:
            compiled.append((regex.compile(rf"(.*\.)?({pattern[:1000]})$"), number(value, patterns_key, opened)))
        except (regex.error, RecursionError, OverflowError) as error:
            raise refused(pattern) from error

    def number_of(path: str) -> float:
        for pattern, number in compiled:
            try:
                if matches(pattern, path):
                    return number
            except TimeoutError as error:
                raise refused(pattern.pattern) from error
        return default

    return number_of


def number(value, key: str, opened: Opened) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**53:  # nor NaN, nor what no float can hold
        raise AdapterError(
            f"The {key} of the config in {opened.path} is {str(value)[:40]!r}, which is no number that can be used; correct it."
        )
    return value


def _configs_in_metadata(metadata: dict) -> dict[str, dict]:
    """The configs that diffusers keeps in the header of the file, by the model's part that leads their keys: {"unet.r": 8, "text_encoder.r": 4, …}."""
    found: dict[str, dict] = {}
    try:
        for key, value in json.loads(metadata["lora_adapter_metadata"]).items():
            part, _, name = key.rpartition(".")
            found.setdefault(part, {})[name] = value
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return {}
    return {part: config for part, config in found.items() if "r" in config and "lora_alpha" in config}


def base_model(opened: Opened) -> str | None:
    named = (opened.config or {}).get("base_model_name_or_path") or opened.tensors.metadata.get("ss_base_model_version")
    return named if isinstance(named, str) and named else None


def _method(config: dict, modules: dict[str, LoraFactors]) -> str:
    variations = []
    if any(factors.magnitude_name for factors in modules.values()) or config.get("use_dora"):
        variations.append("DoRA")
    if config.get("use_rslora"):
        variations.append("rsLoRA")
    start = str(config.get("init_lora_weights", "")).lower()
    variations += [label for label in ("PiSSA", "OLoRA", "CorDA", "LoftQ", "EVA") if start.startswith(label.lower())]
    return f"LORA ({', '.join(variations)})" if variations else "LORA"


def _of_experts(modules: dict[str, LoraFactors]) -> list[str]:
    several = [factors for factors in modules.values() if factors.experts > 1]
    if not several:
        return []
    return [f"{len(several)} of the modules are experts, {several[0].experts} to a parameter, whose factors the file keeps in one"]


def _second(first: str, second: list[str]) -> list[str]:
    if not second:
        return []
    shown = ", ".join(name[:60] or "one without a name" for name in second[:4])
    more = " and more" if len(second) > 4 else ""
    return [f"holds {len(second) + 1} adapters: {first[:60] or 'the one without a name'} is read, {shown}{more} when asked for by name"]


def _notes(opened: Opened, config: dict, rest: list[str]) -> list[str]:
    notes = []
    if opened.config is None and any(name.startswith("base_model.model.") for name in opened.tensors):
        notes.append("PEFT weights without adapter_config.json")
    if changes_base_weights(config):
        notes.append("started from the base weights' own directions: B·A holds those too, not the change alone")
    if config.get("use_dora"):
        notes.append("DoRA: the update is B·A and a change of magnitude")
    if config.get("alora_invocation_tokens"):
        notes.append("aLoRA: it acts only behind the tokens that invoke it")
    notes += kept_whole(opened, config, rest)
    relatives = _relatives(rest)
    if relatives:
        notes.append(f"part of it is {' and '.join(relatives)}, which is not read")
    return notes


def kept_whole(opened: Opened, config: dict, rest: list[str]) -> list[str]:
    """What else was trained and is not analysed: biases, and modules that PEFT saves whole; or that the config names some which the file lacks."""
    biases = [name for name in rest if name.endswith(".bias")]
    notes = []
    if biases:
        notes.append(
            f"also trains {len(biases)} bias{'es' if len(biases) > 1 else ''}, which no ΔW holds: {biases[0][:80]}{', …' if len(biases) > 1 else ''}"
        )
    others = set(rest) - set(biases)
    notes += left_out(opened.tensors, set(opened.tensors) - others, what="kept whole, listed and not analysed")
    named = config.get("modules_to_save")
    listed = [name for name in named if isinstance(name, str) and name] if isinstance(named, list) else []
    if listed and not any(f".{name}." in f".{tensor}." for name in listed for tensor in rest):
        notes.append(f"the config names modules_to_save ({', '.join(name[:40] for name in listed[:4])}), and the file holds none of them")
    return notes


def _relatives(names: Iterable[str]) -> list[str]:
    """Which relatives of LoRA the names of tensors tell of."""
    names = [name for name in names if len(name) < 1000]
    return [label for label, pattern in RELATIVES.items() if any(pattern.fullmatch(name) for name in names)]


def _refuse(opened: Opened, halves: list[str]):
    tensors = opened.tensors
    if halves:
        raise AdapterError(
            f"The file {tensors.path} holds only one of the two factors of {_count(halves)}, the first {halves[0][:100]}; the file is damaged or cut."
        )
    relatives = _relatives(tensors)
    if relatives:
        raise AdapterError(
            f"The file {tensors.path} holds {' and '.join(relatives)}, no product of two thin matrices; of its kin only LoRA is read."
        )
    raise AdapterError(f"The file {tensors.path} holds {tensors.listing()} and no LoRA factors, which its config promises.")
