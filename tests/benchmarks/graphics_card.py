"""Training on a graphics card, ours beside PEFT with the transformers `Trainer`, in bfloat16: `python -m tests.benchmarks.graphics_card [MODEL...] [--device cuda]`.

All models at hand by default; meant to take five minutes for three sizes. The contestants and their blocks are those of tests/benchmarks/training.py. What a step costs is taken as 4 P
operations a token: 2 P for the way forth and 2 P for the way back to the virtual tokens, P the parameters of all layers; the weights themselves get no
gradient. The head is left out, which ours applies at the answers alone and the Trainer everywhere. Its share is of what the same card does in one product of two large bfloat16 matrices, measured here. Virtual tokens and padding are not counted as
tokens. `--device cpu` shows on any machine that the script runs.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.experiments.sizes import MODELS
from tests.benchmarks.measure import machine, text_table
from tests.benchmarks.training import BATCH_SIZE, LEARNING_RATES, OURS, ROUNDS, STEPS, Where, speeds_of

WIDTH = {"cuda": 8_192, "cpu": 1_024}  # of the matrices whose product is the peak


def table(models: Sequence[str], device: str) -> str:
    """Tokens a second of every model and method, and the share of the peak."""
    peak = peak_of(device)
    rows = []
    for name in models:
        where = Where(name, "bfloat16", device)
        try:
            parameters = multiplying(where)
        except InputError as error:
            print(error, file=sys.stderr)
            continue
        for method in LEARNING_RATES:
            _forget_peak(device)
            speeds, losses = speeds_of(method, where, seeds=1)
            median = {who: statistics.median(found) for who, found in speeds.items()}
            for who, speed in median.items():
                rows.append(
                    [
                        name, method, who, f"{speed:.0f}", f"{min(speeds[who]):.0f} to {max(speeds[who]):.0f}", f"{median[OURS] / speed:.2f} ×",
                        f"{4 * parameters * speed / peak:.1%}", f"{losses[who][0]:.3f}",
                    ]
                )  # fmt: skip
            rows.append([name, method, "both, the most memory held at once", _held(device), "", "", "", ""])
    return text_table(
        f"tokens a second on {name_of(device)}, {BATCH_SIZE} sentences of sentiment a step, bfloat16",
        ["model", "method", "", "median", "range", "ours is faster by", "of the peak", "held-out loss"],
        rows,
        f"{ROUNDS} rounds of {STEPS} steps each, one seed. The peak: {peak / 1e12:.3g} TFLOP/s, one product of two bfloat16 matrices.",
    )


def peak_of(device: str) -> float:
    """Operations a second in the product of two large bfloat16 matrices: the best of ten."""
    import torch

    width, where = WIDTH["cuda" if device.startswith("cuda") else "cpu"], Where(device=device)
    a, b = (torch.randn(width, width, device=device, dtype=torch.bfloat16) for _ in range(2))
    seconds = []
    for _ in range(11):
        where.ended()
        began = time.perf_counter()
        a @ b
        where.ended()
        seconds.append(time.perf_counter() - began)
    return 2 * width**3 / min(seconds[1:])


def multiplying(where: Where) -> int:
    """The parameters of all layers: those of the model without its input embeddings and its head."""
    model = where.load().model
    tables = {id(weight): weight.numel() for weight in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    return sum(each.numel() for each in model.parameters()) - sum(tables.values())


def name_of(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else "this processor"


def _forget_peak(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)


def _held(device: str) -> str:
    import torch

    return f"{torch.cuda.max_memory_allocated(device) / 2**30:.2f} GiB" if device.startswith("cuda") else "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=MODELS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda":
        import torch

        if torch.cuda.device_count() > 1:  # the Trainer would take them all, each with a batch of its own
            parser.error("several cards are visible; choose one by CUDA_VISIBLE_DEVICES")
    print(machine(), flush=True)
    print(f"\n{table(asked.models, asked.device)}")


if __name__ == "__main__":
    main()
