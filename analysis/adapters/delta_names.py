"""Adapters whose tensors make a ΔW by a recipe: PEFT's relatives of LoRA, and LyCORIS's where the names are PEFT's own."""

from __future__ import annotations

import re
from collections import ChainMap
from dataclasses import replace

from soft_prompt_explorer.analysis.adapters import trained_tokens
from soft_prompt_explorer.analysis.adapters.delta import DeltaFactors, Numbers, Parts, Recipe
from soft_prompt_explorer.analysis.adapters.lora import LoraAdapter
from soft_prompt_explorer.analysis.adapters.lora_names import base_model, by_pattern, has_factors, kept_whole, natural, number, words_beside
from soft_prompt_explorer.analysis.adapters.opening import Opened
from soft_prompt_explorer.analysis.adapters.recipes import FULL, RECIPES
from soft_prompt_explorer.analysis.adapters.recipes_of_weights import RECIPES_OF_WEIGHTS
from soft_prompt_explorer.analysis.adapters.tensors import check_count
from soft_prompt_explorer.analysis.core.errors import AdapterError

TYPES = RECIPES | RECIPES_OF_WEIGHTS | {"FULL": FULL}
# Told by their tensors alone, where no config names the type: a name that no other type's tensors have.
WITHOUT_CONFIG = {
    "LOHA": re.compile(r".+\.hada_w1_a"),
    "LOKR": re.compile(r".+\.lokr_w[12](?:_a)?"),
    "ADALORA": re.compile(r".+\.lora_E"),
    "FULL": re.compile(r".+\.diff"),
}
MOST_UPDATES = 10_000  # of one weight
# The keys of a config that hold a number for some modules, beside that for all.
_PATTERNS = {"r": "rank_pattern", "alpha": "alpha_pattern", "lora_alpha": "alpha_pattern"}
_DEFAULT = re.compile(r"\.default(?=\.|$)")  # the name of the adapter, in a file that PEFT's save_pretrained did not write
_WITH_PATTERNS = ("LORA", "LOHA", "LOKR")  # AdaLoRA's rank_pattern holds no ranks
_ALPHA = re.compile(r"(?P<module>.+)\.alpha")


def reads(opened: Opened) -> bool:
    return opened.config is None and _method(opened) is not None and not has_factors(opened)


def read(opened: Opened, name: str, method: str | None = None) -> LoraAdapter:
    """The adapter, of the type that the config names, or that its tensors tell.

    Raises
    ------
    AdapterError
        It holds no such tensors, or they do not go together.
    """
    method = method or _method(opened)
    assert method is not None  # or `reads` would have said no
    recipe = TYPES[method]
    if opened.config is not None and opened.config.get("save_projection") is False:
        raise AdapterError(
            f"The adapter in {opened.path} is {recipe.title} without the random matrices that it projects with (save_projection), which PEFT alone draws again; load it "
            "there, and save it with save_projection."
        )
    named, shared, used = _sorted(opened, recipe)
    if method == "FULL":  # a module whose bias alone was trained has no ΔW
        used -= {tensor for parts in named.values() if "diff" not in parts for tensor in parts.values()}
        named = {module: parts for module, parts in named.items() if "diff" in parts}
        used -= {parts["diff_b"] for parts in named.values() if "diff_b" in parts}
    pruned = [module for module in sorted(named, key=natural) if method == "ADALORA" and _is_pruned(named[module], opened)]
    named = {module: parts for module, parts in named.items() if module not in pruned}
    if pruned and not named:
        raise AdapterError(f"Training took every rank of the {recipe.title} in {opened.path} away, so it changes nothing.")
    if not named:
        raise AdapterError(_none(opened, recipe))
    numbers = _Numbers(opened)
    modules: dict[str, DeltaFactors] = {}
    for module in sorted(named, key=natural):
        parts = Parts(opened.tensors, ChainMap(named[module], shared), numbers.of(module), opened.config or {}, module, len(named))
        modules |= _updates(recipe, parts, named[module])
        check_count(len(modules), opened.tensors.path)
    words = set() if opened.config is None else set(trained_tokens.tensors_of(opened).values())
    rest = [tensor for tensor in opened.tensors if tensor not in used and tensor not in words]
    first = next(iter(modules.values()))
    return LoraAdapter(
        name,
        modules,
        base_model=base_model(opened),
        method="LORA (" + recipe.title + ")" if method in ("KASA", "BDLORA") else method,
        source=opened.source(first.a_name, kind=recipe.title if opened.config is None else ""),
        metadata=opened.tensors.metadata if opened.config is None else opened.config,
        saved_modules=tuple(rest),
        textual_inversion=words_beside(opened, name),
        notes=(*_notes(opened, recipe, rest), *_of_pruned(pruned)),
    )


def _method(opened: Opened) -> str | None:
    names = [name for name in opened.tensors if len(name) < 1000]
    return next((method for method, pattern in WITHOUT_CONFIG.items() if any(pattern.fullmatch(name) for name in names)), None)


def _sorted(opened: Opened, recipe: Recipe) -> tuple[dict[str, dict[str, str]], dict[str, str], set[str]]:
    """The tensors of each module and those that all share, by their part, and which tensors they are in all."""
    own = re.compile(rf"(?:base_model\.model\.)?(?P<module>.+)\.{recipe.prefix}(?P<part>.+)")
    common = re.compile(rf"base_model\.{recipe.prefix}(?P<part>.+)")
    named: dict[str, dict[str, str]] = {}
    shared: dict[str, str] = {}
    used = set()
    for tensor in opened.tensors:
        if len(tensor) >= 1000:
            continue
        if (match := common.fullmatch(tensor)) is not None:
            found, part = shared, _DEFAULT.sub("", match["part"])
        elif (match := own.fullmatch(tensor)) is not None:
            found, part = named.setdefault(match["module"], {}), _DEFAULT.sub("", match["part"])
        else:
            continue
        if found.setdefault(part, tensor) == tensor:
            used.add(tensor)
    for found in (shared, *named.values()):
        for part in [part for part in found if part.rpartition(".")[0] in found]:  # of another adapter in the same file: listed, not read
            used.discard(found.pop(part))
    for tensor in opened.tensors:
        match = _ALPHA.fullmatch(tensor) if len(tensor) < 1000 else None
        if match is not None and match["module"] in named:
            named[match["module"]]["alpha"] = tensor
            used.add(tensor)
    return named, shared, used


def _updates(recipe: Recipe, parts: Parts, own: dict[str, str]) -> dict[str, DeltaFactors]:
    """The factors of one module by its path, or of each of several updates that its weight has, called as experts are."""
    names = list(own.values())
    first, last = names[0], names[-1]
    if recipe.updates is None:
        return {parts.module: DeltaFactors(parts.tensors, first, last, 1.0, recipe=recipe, parts=parts)}
    try:
        count = recipe.updates(parts)
    except (KeyError, IndexError) as error:
        raise AdapterError(
            f"The file {parts.tensors.path} holds no router for {parts.module[:100]}, which {recipe.title} needs; it is damaged."
        ) from error
    if not 1 <= count <= MOST_UPDATES:
        raise AdapterError(f"The file {parts.tensors.path} would hold {count:,} updates of {parts.module[:100]}; it is damaged.")
    owner, _, leaf = parts.module.rpartition(".")
    return {
        f"{owner}.{i}.{leaf}".lstrip("."): DeltaFactors(parts.tensors, first, last, 1.0, recipe=recipe, parts=replace(parts, which=i))
        for i in range(count)
    }


class _Numbers:
    """The numbers of a config, each checked and, where it has patterns, for each module."""

    def __init__(self, opened: Opened) -> None:
        self.opened, self.config = opened, opened.config or {}
        self.patterned = {
            key: by_pattern(self.config, patterns, key, 8, opened)
            for key, patterns in _PATTERNS.items()
            if isinstance(self.config.get(patterns), dict) and self.config.get("peft_type") in _WITH_PATTERNS
        }

    def of(self, module: str) -> Numbers:
        found = {key: number_of(module) for key, number_of in self.patterned.items()}  # now: a stranger's patterns are given a time
        return lambda key, missing: found[key] if key in found else number(self.config.get(key, missing), key, self.opened)


def _none(opened: Opened, recipe: Recipe) -> str:
    if recipe is TYPES["UNILORA"]:
        return f"The file {opened.tensors.path} holds the numbers that Uni-LoRA shares and not where they stand in which weight; load it with PEFT, and save it with save_indices."
    return f"The file {opened.tensors.path} holds {opened.tensors.listing()} and nothing of {recipe.title}, which its config promises."


def _is_pruned(parts: dict[str, str], opened: Opened) -> bool:
    """Whether a module of AdaLoRA has no rank left: training gives the ranks to the modules that need them (Zhang et al. 2023, section 3.3)."""
    return "E" in parts and tuple(opened.tensors.entries[parts["E"]].shape) == (0, 1)  # shards that nobody gathered have one dimension


def _of_pruned(modules: list[str]) -> list[str]:
    if not modules:
        return []
    have = f"{len(modules)} modules have, the first of them {modules[0][:100]}," if len(modules) > 1 else f"{modules[0][:100]} has"
    return [f"{have} no rank left, and nothing is changed there"]


def _notes(opened: Opened, recipe: Recipe, rest: list[str]) -> tuple[str, ...]:
    made = "ΔW is made with the base model's weights" if recipe.needs_weight else "ΔW is computed from its tensors"
    notes = [f"{recipe.title}: {made}"]
    if recipe.says:
        notes.append(recipe.says)
    if opened.config is None:
        notes.append("without adapter_config.json, so its scaling is what the file says, else 1")
    return (*notes, *kept_whole(opened, opened.config or {}, rest))
