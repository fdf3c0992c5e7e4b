"""A step of prompt tuning: `trained_prompts.trainer.train` beside PEFT with the transformers `Trainer`; and what a run needs.

Both train ten virtual tokens on the same sentences of the sentiment task, eight a step, with the same model in float32 on the
processor, the same initial values, learning rate and schedule. The Trainer is given what its documentation shows for such a task:
random batches padded on the right by `DataCollatorForSeq2Seq`, −100 over everything but the answer. Its optimiser is AdamW without
decay, which is Adam. All that ours does not do is off: logging, checkpoints, evaluation, reports, clipping of gradients, progress
bars, the key-value cache. Sentences are turned into tokens before its time begins, as before ours.

What is counted is from the end of a block's first step to the end of its last, so setting up the Trainer is not. Blocks take turns.
Ours is slower in some steps than in others, as its batches hold sentences of like length, short ones or long; the mean of a block
evens that out, and the batches of a block are others each time.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from tqdm import tqdm

from tests.benchmarks.measure import PAUSE, median_and_range, peak_memory, ratio, text_table

ROUNDS, STEPS = 5, 8
BATCH_SIZE, VIRTUAL_TOKENS, LEARNING_RATE = 8, 10, 0.05
OURS, THEIRS = "ours", "PEFT + transformers Trainer"
FRESH_PROCESSES, FULL_RUN = 5, 60


def tables() -> Iterator[str]:
    """A step, then a run in a fresh process."""
    yield _a_fresh_run()
    yield _a_step()


# --- A step --------------------------------------------------------------------------------------------------------------


def _a_step() -> str:
    blocks = {OURS: _our_blocks(), THEIRS: _their_blocks()}
    seconds: dict[str, list[float]] = {name: [] for name in blocks}
    with tqdm(total=(ROUNDS + 1) * len(blocks), desc="training", file=sys.stderr) as bar:
        for turn in range(ROUNDS + 1):
            for name, block in blocks.items():
                time.sleep(PAUSE)
                took = block(turn)
                if turn:
                    seconds[name].append(took)
                bar.update()
    rows = [[name, *median_and_range(seconds[name]), ratio(seconds, name, OURS)] for name in blocks]
    return text_table(
        f"a training step, {BATCH_SIZE} sentences of sentiment, {VIRTUAL_TOKENS} virtual tokens",
        ["", "median", "range", "against ours"],
        rows,
        f"{ROUNDS} rounds of {STEPS} steps each. Expected: 1.5 × or more.",
    )


def _config(steps: int):
    from trained_prompts.trainer import TrainingConfig

    return TrainingConfig(task="sentiment", tokens=VIRTUAL_TOKENS, steps=steps, batch_size=BATCH_SIZE, learning_rate=LEARNING_RATE)


def _our_blocks() -> Callable[[int], float]:
    """One run; a block is its next steps."""
    from analysis.models import EMBEDDED_MODEL, load_model
    from trained_prompts.trainer import train

    run = train(_config((ROUNDS + 1) * (STEPS + 1)), language_model=load_model(EMBEDDED_MODEL, device="cpu"))
    next(run)  # step 0, before any update

    def block(turn: int) -> float:
        next(run)
        began = time.perf_counter()
        for _ in range(STEPS):
            next(run)
        return (time.perf_counter() - began) / STEPS

    return block


def _their_blocks() -> Callable[[int], float]:
    """The same prompt, trained on in a new Trainer each block."""
    import torch
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    from analysis.models import EMBEDDED_MODEL, load_model
    from analysis.vocabulary import load_vocabulary
    from trained_prompts.tasks import get_task
    from trained_prompts.trainer import initial_values

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.ends: list[float] = []

        def on_step_end(self, args, state, control, **kwargs):
            self.ends.append(time.perf_counter())

    base, tokenizer = load_model(EMBEDDED_MODEL, device="cpu")
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=VIRTUAL_TOKENS))
    with torch.no_grad():
        values = initial_values(_config(STEPS), load_vocabulary(EMBEDDED_MODEL), tokenizer)
        model.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(values))
    table = get_task("sentiment").examples("train")
    examples = [_labelled(tokenizer, text, target) for text, target in zip(table["text"], table["target"], strict=True)]

    def block(turn: int) -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=BATCH_SIZE,
                max_steps=STEPS + 1,
                learning_rate=LEARNING_RATE,
                optim="adamw_torch",
                weight_decay=0.0,
                max_grad_norm=0.0,
                lr_scheduler_type="linear",
                logging_strategy="no",
                save_strategy="no",
                eval_strategy="no",
                report_to=[],
                disable_tqdm=True,
                use_cpu=True,
                seed=turn,
            )
            collator = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
            trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collator, callbacks=[clock])
            trainer.remove_callback(PrinterCallback)  # it writes to standard output, where the tables go
            trainer.train()
        return (clock.ends[-1] - clock.ends[0]) / STEPS

    return block


def _labelled(tokenizer, text: str, target: str) -> dict[str, list[int]]:
    prompt, answer = tokenizer(text).input_ids, tokenizer(target, add_special_tokens=False).input_ids
    return {"input_ids": prompt + answer, "attention_mask": [1] * len(prompt + answer), "labels": [-100] * len(prompt) + answer}


# --- A run in a fresh process --------------------------------------------------------------------------------------------


def _a_fresh_run() -> str:
    first, peaks = [], []
    lengths = [1] * (FRESH_PROCESSES - 1) + [FULL_RUN]
    for steps in tqdm(lengths, desc="fresh processes", file=sys.stderr):
        seconds, peak = _fresh_process(steps)
        first.append(seconds)
        peaks.append(peak)
    rows = [
        ["first loss, from the start of the process", *median_and_range(first), "under 15 s"],
        [f"peak memory of {FULL_RUN} steps", f"{peaks[-1] / 2**30:.2f} GiB", "", "under 3 GB"],
    ]
    return text_table(
        f"a run of {BATCH_SIZE} sentences a step, the model prepared",
        ["", "median", "range", "expected"],
        rows,
        f"{FRESH_PROCESSES} processes; the last one ran the {FULL_RUN} steps.",
    )


def _fresh_process(steps: int) -> tuple[float, int]:
    """Seconds from the start of a process to its first loss, and its peak memory at the end of the run."""
    began = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "tests.benchmarks.training", str(steps)], stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        seconds = time.perf_counter() - began
        rest = process.stdout.read()
    if process.returncode:
        raise RuntimeError(f"The training process ended with status {process.returncode}.")
    return seconds, json.loads(rest)["peak"]


def _run(steps: int) -> None:
    from trained_prompts.trainer import train

    for step in train(_config(steps)):
        if step.step == 1:
            print(step.loss, flush=True)
    print(json.dumps({"peak": peak_memory()}))


if __name__ == "__main__":
    _run(int(sys.argv[1]))
