"""A LoRA of a model of 70 billion parameters is analysed a module at a time: its size is on the disk, not in memory."""

import json
import struct
import subprocess
import sys

import numpy as np
import pytest

from tests.support.places import REPOSITORY

LAYERS, RANK, HIDDEN, HEADS, INNER = 80, 64, 8192, 1024, 28672
SHAPES = {"q_proj": (HIDDEN, HIDDEN), "k_proj": (HEADS, HIDDEN), "v_proj": (HEADS, HIDDEN), "o_proj": (HIDDEN, HIDDEN), "gate_proj": (INNER, HIDDEN), "up_proj": (INNER, HIDDEN), "down_proj": (HIDDEN, INNER)}  # fmt: skip

MEASURE = """
import sys
from soft_prompt_explorer.analysis.adapters import load_lora
from soft_prompt_explorer.analysis.loras.ranks import health, spectra
from tests.support.memory import peak_memory
import scipy.linalg, pandas

before = peak_memory()
table = spectra(load_lora(sys.argv[1]))
assert len(table) == int(sys.argv[2])
print((peak_memory() - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_lora_of_more_than_a_gigabyte_takes_less_than_400_mb(tmp_path):
    path = tmp_path / "large.safetensors"
    written = written_lora(path)
    assert written > 1.3e9
    modules = LAYERS * len(SHAPES)
    outcome = subprocess.run(
        [sys.executable, "-c", MEASURE, str(path), str(modules)], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert outcome.returncode == 0, outcome.stderr
    assert float(outcome.stdout) < 400


def written_lora(path) -> int:
    """Write the file a tensor at a time, float16, each tensor the same random numbers from another place; answers its size."""
    header, offset = {}, 0
    for layer in range(LAYERS):
        for name, (out, inp) in SHAPES.items():
            for part, shape in (("A", (RANK, inp)), ("B", (out, RANK))):
                size = 2 * shape[0] * shape[1]
                group = "mlp" if name in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                key = f"base_model.model.model.layers.{layer}.{group}.{name}.lora_{part}.weight"
                header[key] = {"dtype": "F16", "shape": list(shape), "data_offsets": [offset, offset + size]}
                offset += size
    numbers = np.random.default_rng(0).standard_normal(INNER * RANK + 4096).astype(np.float16)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for i, entry in enumerate(header.values()):
            count = (entry["data_offsets"][1] - entry["data_offsets"][0]) // 2
            file.write(numbers[i % 4096 : i % 4096 + count].tobytes())
    return path.stat().st_size
