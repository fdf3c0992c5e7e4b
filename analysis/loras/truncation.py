"""A LoRA cut down to the ranks that hold a share of its energy, as files that PEFT loads, or under the names of kohya or diffusers where it came so."""

from __future__ import annotations

import io
import json
import math
import re
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import LoraAdapter
from soft_prompt_explorer.analysis.adapters.delta import DeltaFactors
from soft_prompt_explorer.analysis.adapters.lora import LoraFactors
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import appears_whole
from soft_prompt_explorer.analysis.core.late import one_at_a_time
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.loras.ranks import check_energy, energies, fewest, rank_pattern, singular_vectors, values_of

# Whose loaders take the ranks from each module's own shapes, so that a copy under the file's names is loaded as the file is.
OWN_NAMES = ("kohya", "diffusers")
_OF_DIFFUSERS = re.compile(r"(?:unet|transformer|text_encoder(?:_\d)?|text_model)\..+")  # in PEFT's spelling, and loaded by diffusers alone
_STALE = ("lora_adapter_metadata", "sshs_model_hash", "sshs_legacy_hash")  # of metadata: the ranks, and digests of the file
_RANKS = ("ss_network_dim", "ss_network_alpha")

COLUMNS = ["module", "rank", "kept", "relative_error"]


def truncate(adapter: LoraAdapter, energy: float, folder: Path, *, report: Report = no_report) -> pd.DataFrame:
    """Write the adapter with the fewest ranks of each module that hold a share of its energy (the best approximation of that rank: Eckart and Young 1936).

    The factors are B' = U √σ and A' = √σ Vᵀ in float32, with α = r in each module, so that the scaling is 1; the config carries `rank_pattern` and
    `alpha_pattern`. A module that was never trained is left out: its update is zero. The experts of one parameter, which PEFT keeps in one at one rank, keep
    as many ranks as that of them which needs most. A file in kohya's or diffusers' naming becomes one safetensors file in the same, where it has alphas with α = r.

    Parameters
    ----------
    energy : the share of Σσ² to keep, above 0 and at most 1; 1 keeps every rank that is not zero, and changes no output.
    folder : appears whole, and must not exist.

    Returns
    -------
    One row a module: module, rank, kept, relative_error (‖ΔW − ΔW'‖_F / ‖ΔW‖_F; missing for a module never trained). The last row, `all`, is of all
    modules together, its ranks summed up.

    Raises
    ------
    InputError
        The share is out of range, the folder exists, nothing was trained, or the adapter holds what a copy of its factors alone would lose.
    """
    check_energy(energy)

    def leading(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        most = max(fewest(energies(each), energy) if each[0] else 0 for each in values.values())
        return dict.fromkeys(values, np.arange(most))

    return _copied(adapter, leading, folder, report)


def keep_directions(adapter: LoraAdapter, kept: Mapping[str, np.ndarray], folder: Path, *, report: Report = no_report) -> pd.DataFrame:
    """Write the adapter with these singular directions of each module alone, as `truncate` does with the leading ones.

    Parameters
    ----------
    kept : numbers from 0, the one of the largest singular value, by module; a module without any is left out.
    folder : appears whole, and must not exist.

    Returns
    -------
    As `truncate`.

    Raises
    ------
    InputError
        As `truncate`, or one parameter holds the factors of several experts, which have to keep the same number.
    """
    if any(factors.experts > 1 for factors in adapter.modules.values()):
        raise InputError(
            f"{adapter.name} keeps the factors of several experts in one, at one rank, so directions cannot be kept one by one; truncate it by energy."
        )
    return _copied(adapter, lambda values: {module: np.sort(kept.get(module, np.arange(0))) for module in values}, folder, report)


def _copied(
    adapter: LoraAdapter, choose: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]], folder: Path, report: Report
) -> pd.DataFrame:
    """Write a copy with the directions that `choose` answers for the modules of a stack, given their singular values."""
    check_can_be_copied(adapter)
    spectra_of: dict[str, tuple[int, np.ndarray]] = {}
    patterns: dict[str, np.ndarray] = {}
    parameters: dict[str, int] = {}
    try:
        with appears_whole(folder) as partial:
            tensors: dict[str, np.ndarray] = {}
            for together in stacks(adapter):
                report(len(spectra_of) / len(adapter.modules), f"module {len(spectra_of) + 1} of {len(adapter.modules)}")
                found = {module: singular_vectors(adapter.modules[module]) for module in together}
                spectra_of |= {module: (adapter.modules[module].rank, values) for module, (_, values, _) in found.items()}
                kept = choose({module: values for module, (_, values, _) in found.items()})
                if not max(map(len, kept.values())):
                    continue
                pairs = [_cut(*found[module], kept[module]) for module in together]
                factors = adapter.modules[together[0]]
                if factors.experts > 1:
                    tensors |= _stacked(factors, pairs)
                    parameters[_parameter_of(together[0])] = len(kept[together[0]])
                elif keeps_names(adapter):
                    tensors |= _own_named(together[0], factors, adapter.family, *pairs[0])
                else:
                    tensors |= _named(together[0], factors, *pairs[0])
                patterns |= kept
            if not tensors:
                raise InputError(f"No module of {adapter.name} was ever trained, so there is nothing to keep.")
            of_modules = {module: len(kept) for module, kept in patterns.items() if adapter.modules[module].experts == 1}
            if keeps_names(adapter):
                _save_own(tensors, adapter, partial)
            else:
                _save(tensors, of_modules, parameters, adapter, partial)
    except FileExistsError as error:
        raise InputError(f"{folder} exists; choose another folder for the truncated adapter.") from error
    except OSError as error:
        raise InputError(f"The truncated adapter cannot be written to {folder}: {error.strerror or error}.") from error
    report(1.0, "ready")
    return _losses(spectra_of, patterns)


def zipped_copy(write: Callable[[Path], object]) -> bytes:
    """The files that `write` puts into a new folder, in a zip."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "cut")
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as file:
            for path in sorted((Path(folder) / "cut").iterdir()):
                file.write(path, path.name)
        return buffer.getvalue()


def planned(table: pd.DataFrame, energy: float, adapter: LoraAdapter | None = None) -> pd.DataFrame:
    """What `truncate` would keep and lose, from the table of `analysis.loras.ranks.spectra`: the same columns, nothing written.

    Parameters
    ----------
    adapter : which the table is of, where it may have experts.

    Raises
    ------
    InputError
        The share is out of range.
    """
    patterns = rank_pattern(table, energy)
    for together in stacks(adapter) if adapter is not None else ():
        most = max(patterns.get(module, 0) for module in together)
        patterns |= dict.fromkeys(together if most else (), most)
    kept = {module: np.arange(count) for module, count in patterns.items()}
    return _losses({row["module"]: (row["rank"], values_of(row)) for _, row in table.iterrows()}, kept)


def stacks(adapter: LoraAdapter) -> list[list[str]]:
    """The modules in the file's order, those whose factors it keeps in one together."""
    found: dict[str, list[str]] = {}
    for module, factors in adapter.modules.items():
        found.setdefault(factors.a_name, []).append(module)
    return list(found.values())


def check_can_be_copied(adapter: LoraAdapter) -> None:
    """Refuse a LoRA of which `truncate` would lose something.

    Raises
    ------
    InputError
        It is no LoRA, or does more than its factors say (see `LoraAdapter.beside_factors`), holds magnitudes (DoRA), or embeddings' factors, or is of a trainer that loads no such copy.
    """
    if any(isinstance(factors, DeltaFactors) for factors in adapter.modules.values()):
        raise InputError(
            f"{adapter.name} is of the type {adapter.method}, whose files hold no ranks that could be cut; only a LoRA is truncated here."
        )
    if adapter.beside_factors is not None:
        raise InputError(f"{adapter.name} {adapter.beside_factors}, which a truncated copy would lose.")
    if not (keeps_names(adapter) or adapter.family.startswith("PEFT")):
        raise InputError(
            f"{adapter.name} is a LoRA as {adapter.family} names it, whose loader takes one rank for all modules from its own config or code, so a copy with other ranks would "
            "not load there; convert it to PEFT's layout first, and truncate that."
        )
    if any(factors.magnitude_name for factors in adapter.modules.values()):
        raise InputError(
            f"{adapter.name} is weight-decomposed (DoRA): its update is not B A alone, and cutting ranks would change its magnitudes' meaning."
        )
    if any("lora_embedding_" in factors.a_name for factors in adapter.modules.values()):
        raise InputError(f"{adapter.name} changes embeddings, whose factors PEFT keeps otherwise; they cannot be truncated here.")


def _losses(spectra_of: dict[str, tuple[int, np.ndarray]], patterns: dict[str, np.ndarray]) -> pd.DataFrame:
    """The table of `truncate`, from each module's rank and singular values and the directions kept of those that were trained."""
    rows, total, lost = [], 0.0, 0.0
    for module, (rank, values) in spectra_of.items():
        squares, kept = values**2, patterns.get(module, np.arange(0))
        left_out = np.delete(squares, kept).sum()
        rows.append((module, rank, len(kept), math.sqrt(left_out / squares.sum()) if len(kept) and squares.any() else float("nan")))
        total, lost = total + squares.sum(), lost + left_out
    table = pd.DataFrame(rows, columns=COLUMNS)
    table.loc[len(table)] = ["all", table["rank"].sum(), table["kept"].sum(), math.sqrt(lost / total) if total else float("nan")]
    return table


def _cut(u: np.ndarray, values: np.ndarray, vt: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """B' and A' of these directions."""
    return u[:, kept] * np.sqrt(values[kept]), np.sqrt(values[kept])[:, None] * vt[kept]


def _parameter_of(module: str) -> str:
    """The parameter that holds the weights of several experts, of one of them."""
    owner, _, parameter = module.rsplit(".", 2)
    return f"{owner}.{parameter}"


def _stacked(factors: LoraFactors, pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    """The factors of all experts in one, as PEFT keeps them: A's rows expert by expert, B's columns rank by rank."""
    a = np.concatenate([each for _, each in pairs])
    b = np.stack([each for each, _ in pairs], axis=2).reshape(len(pairs[0][0]), -1)
    named = {re.sub(r"\.lora_([AB])\..+", r".lora_\1.weight", name): array for name, array in ((factors.a_name, a), (factors.b_name, b))}
    return {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in named.items()}


def _named(module: str, factors: LoraFactors, b: np.ndarray, a: np.ndarray) -> dict[str, np.ndarray]:
    """The factors by PEFT's names."""
    a, b = _shaped(factors, b, a)
    return {f"base_model.model.{module}.lora_A.weight": a, f"base_model.model.{module}.lora_B.weight": b}


def _shaped(factors: LoraFactors, b: np.ndarray, a: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A and B in the shapes of the module's kind, float32."""
    shape_a = factors.tensors.entries[factors.mid_name or factors.a_name].shape
    shape_b = factors.tensors.entries[factors.b_name].shape
    if factors.mid_name is not None:
        shape_a = (shape_a[0], factors.tensors.entries[factors.a_name].shape[1], *shape_a[2:])
    a = a.reshape(len(a), *shape_a[1:])
    b = b.reshape(*b.shape, *(1,) * (len(shape_b) - 2))
    return np.ascontiguousarray(a, dtype=np.float32), np.ascontiguousarray(b, dtype=np.float32)


def keeps_names(adapter: LoraAdapter) -> bool:
    """Whether a copy of it has the file's own naming, and is no folder for PEFT."""
    return adapter.family in OWN_NAMES or (adapter.family == "PEFT naming" and all(map(_OF_DIFFUSERS.fullmatch, adapter.modules)))


def _own_named(module: str, factors: LoraFactors, family: str, b: np.ndarray, a: np.ndarray) -> dict[str, np.ndarray]:
    """The factors by the file's own names, with kohya's alpha."""
    named = dict(zip((factors.a_name, factors.b_name), _shaped(factors, b, a), strict=True))
    alpha = f"{module}.alpha"
    return named | ({alpha: np.array(len(a), dtype=np.float32)} if family == "kohya" or alpha in factors.tensors else {})


def _save_own(tensors: dict[str, np.ndarray], adapter: LoraAdapter, folder: Path) -> None:
    """Write one safetensors file, with what the file's metadata say but its ranks."""
    from safetensors.numpy import save_file

    said = {str(key): value for key, value in adapter.metadata.items() if isinstance(value, str) and key not in _STALE}
    said |= {key: "Dynamic" for key in _RANKS if key in said}  # as kohya's own resize_lora says where they differ
    name = re.sub(r"[^\w.-]+", "_", adapter.source.path.stem)[:100].strip(".") or "lora"
    save_file(tensors, folder / f"{name}.safetensors", metadata=said or None)


def _save(tensors: dict[str, np.ndarray], patterns: dict[str, int], parameters: dict[str, int], adapter: LoraAdapter, folder: Path) -> None:
    """Write PEFT's two files, with the ranks of modules and of parameters that hold several experts."""
    with one_at_a_time():
        from peft import LoraConfig
    from safetensors.numpy import save_file

    ranks = patterns | parameters
    largest = max(ranks.values())
    LoraConfig(
        base_model_name_or_path=adapter.base_model,
        inference_mode=True,
        r=largest,
        lora_alpha=largest,
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=sorted(patterns),
        target_parameters=sorted(parameters) or None,
        lora_dropout=0.0,
    ).save_pretrained(str(folder))
    save_file(tensors, folder / "adapter_model.safetensors")
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))  # PEFT writes a set in any order
    config["target_modules"] = sorted(patterns)
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
