"""Training: `trained_prompts.training.trainer.train` beside PEFT with the transformers `Trainer`; what a run needs; and eight prompts over one model.

Both train ten virtual tokens, or a LoRA of rank 8, on the same sentences of the sentiment task, eight a step, with the same model in float32 on the
processor, the same initial values, learning rate and schedule, for as many steps. The Trainer is given what its documentation shows for such a task:
random batches padded on the right by `DataCollatorForSeq2Seq`, −100 over everything but the answer. Its optimiser is AdamW without
decay, which is Adam. All that ours does not do is off: logging, checkpoints, evaluation, reports, clipping of gradients, progress
bars, the key-value cache. Sentences are turned into tokens before its time begins, as before ours.

Each is one run; blocks of its steps take turns with the other's. What is counted in a block is from the end of its first step to the end of its last, and
the tokens of the sentences and answers in between, padding left out. The loss at the end is of the same held-out sentences, so that neither is faster
for learning less; one run's loss is mostly the luck of its batches, so each is trained with several seeds.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from soft_prompt_explorer.analysis.models.computing import Dtype
from soft_prompt_explorer.analysis.models.embedded import EMBEDDED_MODEL
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from tests.benchmarks.measure import PAUSE, median_and_range, text_table
from tests.support.memory import peak_memory

MODEL = EMBEDDED_MODEL
ROUNDS, STEPS, SEEDS = 5, 16, 3
BATCH_SIZE, VIRTUAL_TOKENS, RANK = 8, 10, 8
LEARNING_RATES = {"prompt-tuning": 0.05, "lora": 0.001}
HELD_OUT = 200
OURS, THEIRS = "ours", "PEFT + transformers Trainer"
FRESH_PROCESSES, FULL_RUN = 5, 60
PROMPTS = 8

Block = Callable[[], tuple[int, float]]  # makes STEPS + 1 steps; the tokens in all but the first, and the seconds they took


class Where(NamedTuple):
    """The model that is trained beside, its numbers, and what computes."""

    model: str = MODEL
    dtype: Dtype = "float32"
    device: str = "cpu"

    def load(self) -> LanguageModel:
        return load_model(self.model, device=self.device, dtype=self.dtype)

    def ended(self) -> None:
        """Wait until the graphics card has done what it was asked."""
        if self.device.startswith("cuda"):
            import torch

            torch.cuda.synchronize()


def tables() -> Iterator[str]:
    """A run in a fresh process, tokens a second by two methods, and the memory of many prompts."""
    yield _a_fresh_run()
    for method in LEARNING_RATES:
        yield _tokens_a_second(method)
    yield _many_prompts()


# --- Tokens a second -----------------------------------------------------------------------------------------------------


def speeds_of(method: str, where: Where, seeds: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Tokens a second of each contestant, block by block, and its held-out loss by seed."""
    contestants = {OURS: _ours, THEIRS: _theirs}
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    losses: dict[str, list[float]] = {name: [] for name in contestants}
    with tqdm(total=seeds * (ROUNDS + 1) * len(contestants), desc=method, file=sys.stderr) as bar:
        for seed in range(seeds):
            runs = {name: begin(method, seed, where) for name, begin in contestants.items()}
            for turn in range(ROUNDS + 1):
                for name, (block, _) in runs.items():
                    time.sleep(PAUSE)
                    tokens, seconds = block()
                    if turn:
                        speeds[name].append(tokens / seconds)
                    bar.update()
            for name, (_, loss) in runs.items():
                losses[name].append(loss())
    return speeds, losses


def _tokens_a_second(method: str) -> str:
    speeds, losses = speeds_of(method, Where(), SEEDS)
    medians = {name: statistics.median(found) for name, found in speeds.items()}
    rows = [
        [
            name, f"{medians[name]:.0f}", f"{min(found):.0f} to {max(found):.0f}", f"{medians[OURS] / medians[name]:.2f} ×",
            f"{statistics.mean(losses[name]):.3f}", ", ".join(f"{loss:.3f}" for loss in losses[name]),
        ]
        for name, found in speeds.items()
    ]  # fmt: skip
    what = f"{VIRTUAL_TOKENS} virtual tokens" if method == "prompt-tuning" else f"a LoRA of rank {RANK}"
    return text_table(
        f"tokens a second, {what}, {BATCH_SIZE} sentences of sentiment a step",
        ["", "median", "range", "ours is faster by", "held-out loss", "by seed"],
        rows,
        f"{SEEDS} seeds, {ROUNDS} rounds of {STEPS} steps each; the loss after all {_steps()} steps, of {HELD_OUT} sentences. Expected: 1.5 × or more.",
    )


def _steps() -> int:
    return (ROUNDS + 1) * (STEPS + 1)


def _config(steps: int, method: str = "prompt-tuning", seed: int = 0, where: Where | None = None):
    from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

    where = where or Where(MODEL)
    return TrainingConfig(
        task="sentiment", model=where.model, dtype=where.dtype, device=where.device, method=method, tokens=VIRTUAL_TOKENS, rank=RANK, steps=steps, batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATES[method], seed=seed,
    )  # fmt: skip


def _ours(method: str, seed: int, where: Where) -> tuple[Block, Callable[[], float]]:
    from soft_prompt_explorer.analysis.asking.batches import encode, like_length_batches
    from soft_prompt_explorer.analysis.asking.in_front import bare, with_prompt
    from soft_prompt_explorer.analysis.asking.lora import applied_weights
    from soft_prompt_explorer.analysis.tasks.finding import get_task
    from soft_prompt_explorer.trained_prompts.training.lora import config_of
    from soft_prompt_explorer.trained_prompts.training.trainer import train

    config, language_model = _config(_steps(), method, seed, where), where.load()
    table = get_task("sentiment").examples("train")
    lengths = [len(example.ids) + 1 for example in encode(language_model[1], table["text"], table["target"])]
    batches = like_length_batches([length - 1 for length in lengths], BATCH_SIZE, np.random.default_rng(config.seed))
    tokens = [sum(lengths[i] for i in batch) for batch in reversed(batches)]  # in the order in which the trainer takes them
    run = train(config, language_model=language_model)
    last = [next(run)]  # step 0, before any update

    def block() -> tuple[int, float]:
        last[0] = next(run)
        where.ended()
        first, began = last[0].step, time.perf_counter()
        for _ in range(STEPS):
            last[0] = next(run)
        where.ended()
        return sum(tokens[first : first + STEPS]), time.perf_counter() - began

    def loss() -> float:
        run.close()
        with ExitStack() as stack:
            if method == "lora":
                stack.enter_context(applied_weights(language_model[0], config_of(config), last[0].weights))
                return _held_out_loss(bare(language_model))
            return _held_out_loss(with_prompt(language_model, last[0].embeddings))

    return block, loss


def _theirs(method: str, seed: int, where: Where) -> tuple[Block, Callable[[], float]]:
    """One Trainer in a thread of its own, which waits at the end of each block for the next."""
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, Trainer, TrainerCallback, TrainingArguments

    from soft_prompt_explorer.analysis.asking.in_front import Subject
    from soft_prompt_explorer.analysis.tasks.finding import get_task

    model, tokenizer = _their_model(method, seed, where)
    table = get_task("sentiment").examples("train")
    examples = [_labelled(tokenizer, text, target) for text, target in zip(table["text"], table["target"], strict=True)]
    may_go_on, is_done = threading.Semaphore(0), threading.Semaphore(0)
    ends: list[float] = []
    tokens: list[int] = []
    pad = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)

    def collate(batch):
        padded = pad(batch)
        tokens.append(int(padded["attention_mask"].sum()))
        return padded

    class Turns(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step % (STEPS + 1) == 0:
                may_go_on.acquire()

        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step % (STEPS + 1) in (0, 1):
                where.ended()
            ends.append(time.perf_counter())
            if state.global_step % (STEPS + 1) == 0:
                is_done.release()

    folder = tempfile.TemporaryDirectory()
    arguments = TrainingArguments(
        output_dir=folder.name, per_device_train_batch_size=BATCH_SIZE, max_steps=_steps(), learning_rate=LEARNING_RATES[method], optim="adamw_torch",
        weight_decay=0.0, max_grad_norm=0.0, lr_scheduler_type="linear", logging_strategy="no", save_strategy="no", eval_strategy="no", report_to=[],
        disable_tqdm=True, use_cpu=where.device == "cpu", bf16=where.dtype == "bfloat16", seed=seed,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collate, callbacks=[Turns()])
    trainer.remove_callback(PrinterCallback)  # it writes to standard output, where the tables go
    thread = threading.Thread(target=trainer.train, daemon=True)
    thread.start()

    def block() -> tuple[int, float]:
        may_go_on.release()
        while not is_done.acquire(timeout=1.0):
            if not thread.is_alive():
                raise RuntimeError("The Trainer ended before its steps were made.")
        made = len(ends)
        return sum(tokens[made - STEPS : made]), ends[-1] - ends[-1 - STEPS]

    def loss() -> float:
        thread.join()
        folder.cleanup()
        return _held_out_loss(Subject(model.eval(), tokenizer, VIRTUAL_TOKENS if method == "prompt-tuning" else 0))

    return block, loss


def _their_model(method: str, seed: int, where: Where) -> tuple:
    """PEFT's model with the initial values that ours starts from, and the tokenizer."""
    import torch
    from peft import LoraConfig, PromptTuningConfig, TaskType, get_peft_model

    from soft_prompt_explorer.analysis.models.vocabulary import load_vocabulary
    from soft_prompt_explorer.trained_prompts.training.initial import initial_values

    base, tokenizer = where.load()
    tokenizer.padding_side = "right"
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    torch.manual_seed(seed)
    if method == "lora":
        targets = ["q_proj", "v_proj"]
        return get_peft_model(
            base, LoraConfig(task_type=TaskType.CAUSAL_LM, r=RANK, lora_alpha=2 * RANK, target_modules=targets)
        ), tokenizer
    model = get_peft_model(base, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=VIRTUAL_TOKENS))
    with torch.no_grad():
        values = initial_values(_config(STEPS, seed=seed, where=where), load_vocabulary(where.model), tokenizer)
        model.prompt_encoder["default"].embedding.weight.copy_(torch.from_numpy(values))
    return model, tokenizer


def _labelled(tokenizer, text: str, target: str) -> dict[str, list[int]]:
    prompt, answer = tokenizer(text).input_ids, tokenizer(target, add_special_tokens=False).input_ids
    return {"input_ids": prompt + answer, "attention_mask": [1] * len(prompt + answer), "labels": [-100] * len(prompt) + answer}


def _held_out_loss(subject) -> float:
    from soft_prompt_explorer.analysis.asking.answers import predictions
    from soft_prompt_explorer.analysis.tasks.finding import get_task

    task = get_task("sentiment")
    return float(predictions(subject, task, task.examples("held-out").head(HELD_OUT))["loss"].mean())


# --- Many prompts --------------------------------------------------------------------------------------------------------


def _many_prompts() -> str:
    """The memory of eight runs that share one model, beside that of eight processes with a run each, all of them alive."""
    together, apart = _held(1, PROMPTS), _held(PROMPTS, 1)
    rows = [
        [f"{PROMPTS} runs over one model", f"{together / 2**30:.2f} GiB", ""],
        [f"{PROMPTS} processes", f"{apart / 2**30:.2f} GiB", f"1/{apart / together:.1f}"],
    ]
    return text_table(
        f"memory of {PROMPTS} prompts that are trained at once",
        ["", "held", "ours needs"],
        rows,
        "What a process shares with others counts for each in part (PSS). Expected: 1/4 or less.",
    )


def _held(processes: int, prompts: int) -> int:
    """Bytes held by so many processes together, each in the middle of so many runs."""
    children: list[subprocess.Popen] = []
    try:
        for i in tqdm(range(processes), desc=f"{processes} × {prompts}", file=sys.stderr):
            command = [sys.executable, "-m", "tests.benchmarks.training", "hold", str(prompts), str(i), MODEL]
            children.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
            if children[-1].stdout.readline().strip() != "ready":
                raise RuntimeError("A process ended before it had trained.")
        held = 0
        for child in children:
            child.stdin.write("how much\n")
            child.stdin.flush()
            held += json.loads(child.stdout.readline())
        return held
    finally:
        for child in children:
            child.stdin.close()
            child.wait()
            child.stdout.close()


def _hold(prompts: int, seed: int) -> None:
    """Two steps of each of so many runs, in turn; then the memory held by this process whenever it is asked for."""
    import psutil

    from soft_prompt_explorer.trained_prompts.training.trainer import train

    language_model = load_model(MODEL, device="cpu")
    runs = [train(_config(FULL_RUN, seed=seed + i), language_model=language_model) for i in range(prompts)]
    for _ in range(3):  # step 0 is before any update
        for run in runs:
            next(run)
    print("ready", flush=True)
    for _ in sys.stdin:
        memory = psutil.Process().memory_full_info()
        print(getattr(memory, "pss", memory.uss), flush=True)


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
    from soft_prompt_explorer.trained_prompts.training.trainer import train

    for step in train(_config(steps)):
        if step.step == 1:
            print(step.loss, flush=True)
    print(json.dumps({"peak": peak_memory()}))


if __name__ == "__main__":
    if sys.argv[1] == "hold":
        MODEL = sys.argv[4]
        _hold(int(sys.argv[2]), int(sys.argv[3]))
    else:
        _run(int(sys.argv[1]))
