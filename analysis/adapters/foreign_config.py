"""What other packages than PEFT write as `adapter_config.json` beside an adapter: MLX, and AdapterHub's adapters."""

from __future__ import annotations

import math
from pathlib import Path

from soft_prompt_explorer.analysis.core.errors import AdapterError
from soft_prompt_explorer.analysis.core.folders import read_json_object

MAX_JSON = 2**20
SCALE, ALPHA = "scale of every update", "alpha of every update"  # in the metadata of what is read
# MLX's file of today and of before, and AdapterHub's two; uploaded ones get PEFT's name.
WEIGHTS = (
    "adapters.safetensors",
    "adapters.npz",
    "pytorch_adapter.bin",
    "adapter.safetensors",
    "adapter_model.safetensors",
    "adapter_model.bin",
)


def read_json(path: Path) -> dict:
    """A small JSON object from a file.

    Raises
    ------
    AdapterError
        It is larger than `MAX_JSON`, not JSON or not an object.
    """
    if path.stat().st_size > MAX_JSON:
        raise AdapterError(f"The file {path} has {path.stat().st_size:,} bytes; an adapter's config has a few hundred.")
    return read_json_object(path, AdapterError)


def read(path: Path) -> dict | None:
    """What another package's config says, with the numbers that scale its updates under `SCALE` or `ALPHA`; None where it is PEFT's or nobody's.

    Raises
    ------
    AdapterError
        It is of a kind that is not read.
    """
    config = read_json(path)
    if "peft_type" in config:
        return None
    inside = config.get("config")
    if isinstance(inside, dict) and "model_type" in config:
        return _adapterhub(config, inside, path)
    return _mlx(config) if {"fine_tune_type", "lora_parameters"} & set(config) else None


def _adapterhub(config: dict, inside: dict, path: Path) -> dict:
    architecture = str(inside.get("architecture"))[:60]
    if architecture == "prompt_tuning" or (architecture == "lora" and inside.get("composition_mode", "add") == "add"):
        return config | _number(ALPHA, inside.get("alpha"))
    raise AdapterError(
        f"The folder {path.parent} holds an adapter of AdapterHub's package adapters ({architecture}), not PEFT's; convert it to PEFT's layout."
    )


def _mlx(config: dict) -> dict:
    """MLX adds `scale` times the product; where its older versions say an alpha too, times alpha / rank."""
    said = config.get("lora_parameters")
    if not isinstance(said, dict):
        return config
    scale, alpha, rank = (_number(key, said.get(key)).get(key) for key in ("scale", "alpha", "rank"))
    if scale is not None and alpha is not None and rank:
        scale *= alpha / rank
    return config | _number(SCALE, scale)


def _number(key: str, value: object) -> dict[str, float]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**53
    return {key: float(value)} if is_number and math.isfinite(value) else {}  # type: ignore[arg-type]
