"""PEFT's `target_parameters`: one pair of factors for a parameter that holds the weights of several experts.

Of E experts at rank r, A is (r·E, in), expert by expert, and B is (out, r·E), rank by rank with the experts side by side. Where a module has several
such parameters PEFT wraps it once for each, so that the first one's factors stand under `base_layer`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from soft_prompt_explorer.analysis.adapters.lora import LoraFactors

# In the order in which the classes of transformers define them, and PEFT wraps them.
_ORDER = ("gate_up_proj", "gate_proj", "up_proj", "w1", "w3", "down_proj", "w2")
_WRAPPED = ".base_layer"


def owner_of(path: str) -> str:
    """The module's own path, without what PEFT's wrapping adds."""
    while path.endswith(_WRAPPED):
        path = path[: -len(_WRAPPED)]
    return path


def parameters_of(owner: str, targets: list[str]) -> list[str]:
    """The targets' parameters in a module, by PEFT's rule: a target is the end of `module.parameter`."""
    found = []
    for target in targets:
        module, _, parameter = target.rpartition(".")
        if not module or owner == module or owner.endswith(f".{module}"):
            found.append(parameter)
    return found


def named(paths: dict[str, LoraFactors], targets: list[str]) -> dict[str, str]:
    """The parameter that each path's factors change; a numbered one where its name cannot be told.

    Parameters
    ----------
    paths : factors by path, of modules that `parameters_of` finds parameters in.
    """
    wrapped: dict[str, list[str]] = {}
    for path in paths:
        wrapped.setdefault(owner_of(path), []).append(path)
    names = {}
    for owner, nested in wrapped.items():
        nested.sort(key=len, reverse=True)  # the innermost was wrapped first
        parameters = parameters_of(owner, targets)
        known = len(parameters) == len(nested) and (len(nested) == 1 or set(parameters) <= set(_ORDER))
        ordered = sorted(parameters, key=_ORDER.index) if known and len(nested) > 1 else parameters
        if known and {"down_proj", "w2"} & set(ordered[-1:]) and len(nested) > 1:
            first, last = paths[nested[0]], paths[nested[-1]]
            known = first.in_features == last.out_features  # what goes in comes out: else the order is another
        for i, path in enumerate(nested):
            names[path] = ordered[i] if known else f"parameter_{i}"
    return names


def split(factors: LoraFactors, rank: int, scaling: Callable[[int], float]) -> list[LoraFactors] | None:
    """The factors of each expert; None where they are no multiple of the rank."""
    stacked = factors.rank
    if rank < 1 or stacked % rank or factors.mid_name is not None:
        return None
    experts = stacked // rank
    return [replace(factors, scaling=scaling(rank), experts=experts, expert=i) for i in range(experts)]
