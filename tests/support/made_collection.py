"""Some twenty adapters whose likenesses are known, read by a batch."""

import shutil
from pathlib import Path

import numpy as np

from soft_prompt_explorer.analysis.report.batches import batch
from tests.support.lora_files import lora_file

PROMPTS, UNRELATED = 6, 10
ADAPTERS = (
    PROMPTS + 1 + UNRELATED + 4
)  # a prompt is there twice; of one LoRA there is a near copy, one of the same start and one of the same bytes
_NAMES = [f"model.layers.{i}.self_attn.q_proj" for i in range(2)]


def made_collection(adapters: Path, out: Path, *, model: Path | str, width: int, prompts: bool = True, loras: bool = True) -> Path:
    """Make the adapters, and one file that is refused, in a folder; answers the folder that the batch wrote.

    Parameters
    ----------
    model : whose vocabulary the prompts are read against, `width` wide.
    """
    rng = np.random.default_rng(11)
    adapters.mkdir(parents=True)

    def factor(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32)

    if prompts:
        for i in range(PROMPTS):
            np.save(adapters / f"prompt-{i}.npy", factor(4, width))
        shutil.copy(adapters / "prompt-1.npy", adapters / "prompt-again.npy")
    if loras:
        base = {name: (factor(4, 96), factor(80, 4)) for name in _NAMES}
        likely = {
            "base": base,
            "near": {name: (a + 0.05 * factor(4, 96), b + 0.05 * factor(80, 4)) for name, (a, b) in base.items()},
            "start": {name: (a + 0.05 * factor(4, 96), factor(80, 4)) for name, (a, _) in base.items()},
        }
        others = {f"other-{i}": {name: (factor(4, 96), (i + 1) * factor(80, 4)) for name in _NAMES} for i in range(UNRELATED)}
        for name, modules in (likely | others).items():
            lora_file(adapters / f"lora-{name}.safetensors", modules)
        shutil.copy(adapters / "lora-base.safetensors", adapters / "lora-zz-again.safetensors")
    (adapters / "broken.npy").write_bytes(b"\x93NUMPY" + b"\0" * 40)
    batch(str(adapters), out, model=str(model))
    return out
