"""What `ExplorerCallback` costs: `python -m tests.benchmarks.recording`.

A script with plain PEFT and the Trainer of transformers trains ten virtual tokens of the embedded model, with the callback and without it in turn, round after
round. Told are the medians of the seconds of a step, and of the time that the callback itself took its share of the whole training, which a busy machine hides less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import torch

from soft_prompt_explorer.analysis.models.weights import load_model
from soft_prompt_explorer.analysis.tasks.shipped import TASKS
from soft_prompt_explorer.trained_prompts.training.callback import ExplorerCallback
from tests.benchmarks.measure import machine, text_table
from tests.support.places import EMBEDDED

STEPS, ROUNDS, EXAMPLES, EVERY = 60, 3, 8, 20


class Timed(ExplorerCallback):
    """The callback, with a clock around all that it does."""

    def __init__(self, *given, **named) -> None:
        super().__init__(*given, **named)
        self.took = 0.0

    def __getattribute__(self, name: str):
        found = super().__getattribute__(name)
        if not name.startswith("on_"):
            return found

        def clocked(*given, **named):
            began = time.perf_counter()
            try:
                return found(*given, **named)
            finally:
                self.took += time.perf_counter() - began

        return clocked


def trained(folder: Path, callback: ExplorerCallback | None) -> float:
    """Train as a person's script does; the seconds that `Trainer.train` took."""
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    model, tokenizer = load_model(EMBEDDED, device="cpu")
    torch.manual_seed(0)
    model = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=10))
    examples = []
    for row in TASKS["plural"].load().head(200).itertuples():
        text, answer = tokenizer(f"Word: {row.input}\nPlural:").input_ids, tokenizer(row.target).input_ids
        examples.append({"input_ids": text + answer, "attention_mask": [1] * len(text + answer), "labels": [-100] * len(text) + answer})
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(folder), max_steps=STEPS, per_device_train_batch_size=EXAMPLES, learning_rate=0.05, logging_steps=10, save_strategy="no",
            report_to=[], disable_tqdm=True, use_cpu=True,
        ),
        train_dataset=examples, data_collator=DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100), processing_class=tokenizer,
        callbacks=[callback] if callback else [],
    )  # fmt: skip
    began = time.perf_counter()
    trainer.train()
    return time.perf_counter() - began


def table() -> str:
    seconds: dict[bool, list[float]] = {True: [], False: []}
    shares = []
    with tempfile.TemporaryDirectory() as folder:
        for i in range(ROUNDS):
            for recorded in (False, True):
                callback = Timed(every=EVERY) if recorded else None
                took = trained(Path(folder) / f"{i}-{recorded}", callback)
                seconds[recorded].append(took / STEPS)
                if callback is not None:
                    shares.append(callback.took / took)
    with_it, without = statistics.median(seconds[True]), statistics.median(seconds[False])
    return text_table(
        f"ExplorerCallback on {STEPS} steps of {EXAMPLES} examples, a look every {EVERY} steps, {ROUNDS} rounds",
        ["", "measured"],
        [
            ["a step without it, median", f"{1000 * without:.0f} ms"],
            ["a step with it, median", f"{1000 * with_it:.0f} ms ({with_it / without - 1:+.1%})"],
            ["its own time of the training, median", f"{statistics.median(shares):.2%} ({min(shares):.2%} to {max(shares):.2%})"],
        ],
    )


if __name__ == "__main__":
    print(f"{machine()}\n\n{table()}")
