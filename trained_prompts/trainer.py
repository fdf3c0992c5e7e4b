"""Training as a generator: `for step in train(config)` is all that the page, the command line and the tests do.

Prompt tuning is Lester et al. 2021 and LoRA Hu et al. 2021, both on PEFT's own models: n rows in front of the input embeddings, or two thin factors
beside each of some weights, of a model that is frozen; learned by Adam with a learning rate that falls linearly to zero.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from analysis.errors import InputError
from analysis.models import EMBEDDED_MODEL, Report, load_model, no_report
from analysis.vocabulary import Vocabulary, load_vocabulary
from trained_prompts.tasks import get_task

Method = Literal["prompt-tuning", "lora"]
Init = Literal["sample-vocab", "text", "random"]
LEARNING_RATES: dict[Method, float] = {"prompt-tuning": 0.05, "lora": 0.001}
FREQUENT_IDS = 5000  # Lester et al. 2021, section 3.1.2: rows of the 5,000 most frequent tokens
MAX_TOKENS, MAX_RANK, MAX_STEPS = 200, 1_024, 100_000


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Everything that determines a run.

    Attributes
    ----------
    tokens : number of virtual tokens, 1 to 200.
    init : `sample-vocab`, rows of whole words among the vocabulary's first 5,000 ids (byte-pair ids run with frequency); `text`,
        the rows of `init_text`'s tokens, repeated or cut to fit; `random`, normal with the vocabulary's own root mean square.
    rank, alpha, rslora, targets : of LoRA: r; α, 2 r where it is None; whether the scaling is α/√r (Kalajdzievski 2023) instead of α/r; and the names
        of the modules that are changed in every layer.
    steps, batch_size : optimiser steps, and examples in each.
    learning_rate : at the first step; where it is None, `LEARNING_RATES` of the method.
    """

    task: str
    model: str = EMBEDDED_MODEL
    method: Method = "prompt-tuning"
    tokens: int = 10
    init: Init = "sample-vocab"
    init_text: str | None = None
    rank: int = 8
    alpha: float | None = None
    rslora: bool = False
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    steps: int = 150
    batch_size: int = 8
    learning_rate: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        get_task(self.task)
        if self.method not in get_args(Method):
            raise InputError(f"The method {self.method!r} is not known; choose one of {', '.join(get_args(Method))}.")
        if self.learning_rate is None:
            object.__setattr__(self, "learning_rate", LEARNING_RATES[self.method])
        if self.alpha is None:
            object.__setattr__(self, "alpha", 2.0 * self.rank)
        if self.init not in get_args(Init):
            raise InputError(f"The initialisation {self.init!r} is not known; choose one of {', '.join(get_args(Init))}.")
        if self.init == "text" and not (self.init_text or "").strip():
            raise InputError("Starting from a text needs the text; give it with --init-text.")
        if not 1 <= self.tokens <= MAX_TOKENS:
            raise InputError(f"A prompt has 1 to {MAX_TOKENS} virtual tokens, not {self.tokens}.")
        if not 1 <= self.rank <= MAX_RANK:
            raise InputError(f"A LoRA has a rank of 1 to {MAX_RANK}, not {self.rank}.")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise InputError(f"LoRA's alpha lies above 0, not at {self.alpha:g}.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise InputError(f"Training takes 1 to {MAX_STEPS} steps, not {self.steps}.")
        if not 1 <= self.batch_size <= 256:
            raise InputError(f"A batch holds 1 to 256 examples, not {self.batch_size}.")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"A seed is a whole number from 0, not {self.seed}.")
        if not (math.isfinite(self.learning_rate) and 0 < self.learning_rate <= 100):
            raise InputError(f"A learning rate lies above 0 and at most at 100, not at {self.learning_rate}.")

    def described(self) -> dict:
        """What determines a run of this method, by name; the settings of other methods are left out."""
        others = {"prompt-tuning": ("rank", "alpha", "rslora", "targets"), "lora": ("tokens", "init", "init_text")}[self.method]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in vars(self).items() if name not in others}


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What one step did. Step 0 comes before any update: its embeddings are the initial values and its loss is NaN.

    Attributes
    ----------
    loss : mean cross-entropy of the answers' tokens in this step's batch, in nats, before the update.
    seconds : since training began, the model already loaded.
    embeddings : (n, d) float32, the virtual tokens after the update; None for LoRA.
    weights : of LoRA, the factors after the update by the names that PEFT saves them under, float32; None for a prompt.
    """

    step: int
    steps: int
    loss: float
    learning_rate: float
    seconds: float
    embeddings: np.ndarray | None
    weights: dict[str, np.ndarray] | None = None


def train(config: TrainingConfig, *, language_model=None, report: Report = no_report) -> Iterator[TrainingStep]:
    """Train a soft prompt or a LoRA, a step at a time. Stop by ceasing to iterate; nothing is written anywhere.

    Parameters
    ----------
    language_model : (model, tokenizer) from `analysis.models.load_model`, when the caller has it; left as it was found.
    report : told what is being prepared before the first step.

    Raises
    ------
    InputError
        The model cannot be loaded, or an example is too long for it.
    """
    report(0.0, "loading the model")
    model, tokenizer = language_model or load_model(config.model, report=report)
    from trained_prompts.batches import encode

    report(0.9, "reading the examples")
    table = get_task(config.task).examples("train")
    examples = encode(tokenizer, table["text"], table["target"])
    virtual_tokens = config.tokens if config.method == "prompt-tuning" else 0
    check_lengths(examples, virtual_tokens, model.config)
    if config.method == "lora":
        yield from _train_lora(config, model, examples)
    else:
        yield from _train_prompt(config, model, tokenizer, examples)


def _train_prompt(config: TrainingConfig, model, tokenizer, examples: list) -> Iterator[TrainingStep]:
    import torch
    from peft import PromptTuningConfig, TaskType, get_peft_model

    initial = initial_values(config, load_vocabulary(config.model), tokenizer)
    with torch.random.fork_rng():  # PEFT draws its own initial values first; ours replace them
        peft_model = get_peft_model(model, PromptTuningConfig(task_type=TaskType.CAUSAL_LM, num_virtual_tokens=config.tokens))
    prompt = peft_model.prompt_encoder["default"].embedding.weight
    with torch.no_grad():
        prompt.copy_(torch.from_numpy(initial))
    yield TrainingStep(0, config.steps, math.nan, config.learning_rate, 0.0, initial)
    for step, loss, rate, seconds in _optimise(config, peft_model, [prompt], examples, config.tokens):
        yield TrainingStep(step, config.steps, loss, rate, seconds, prompt.detach().cpu().float().numpy().copy())


def _train_lora(config: TrainingConfig, model, examples: list) -> Iterator[TrainingStep]:
    from trained_prompts import lora

    with lora.injected(model, lora.config_of(config), seed=config.seed) as peft_model:
        yield TrainingStep(0, config.steps, math.nan, config.learning_rate, 0.0, None, lora.weights_of(peft_model))
        parameters = [parameter for parameter in peft_model.parameters() if parameter.requires_grad]
        for step, loss, rate, seconds in _optimise(config, peft_model, parameters, examples, 0):
            yield TrainingStep(step, config.steps, loss, rate, seconds, None, lora.weights_of(peft_model))


def _optimise(config: TrainingConfig, peft_model, parameters: list, examples: list, virtual_tokens: int):
    """(step, loss before its update, learning rate, seconds) of every step, each after its update."""
    import torch

    from trained_prompts.batches import answer_logits, like_length_batches

    optimiser = torch.optim.Adam(parameters, lr=config.learning_rate)
    rng = np.random.default_rng(config.seed)
    batches: list[np.ndarray] = []
    began = time.perf_counter()
    for step in range(1, config.steps + 1):
        rate = config.learning_rate * (config.steps - step + 1) / config.steps
        optimiser.param_groups[0]["lr"] = rate
        if not batches:
            batches = like_length_batches([len(example.ids) for example in examples], config.batch_size, rng)
        batch = [examples[i] for i in batches.pop()]

        logits = answer_logits(
            lambda **inputs: peft_model(**inputs, use_cache=False), batch, virtual_tokens=virtual_tokens, device=peft_model.device
        )
        answers = torch.tensor([token for example in batch for token in example.answer], device=logits.device)
        loss = torch.nn.functional.cross_entropy(logits.float(), answers)
        if not torch.isfinite(loss):
            raise InputError(
                f"The loss became {loss.item()} at step {step}; a smaller learning rate than {config.learning_rate} keeps it finite."
            )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        yield step, loss.item(), rate, time.perf_counter() - began


def initial_values(config: TrainingConfig, vocabulary: Vocabulary, tokenizer) -> np.ndarray:
    """The values that a run starts from, (n, d) float32; the same for the same config."""
    rng = np.random.default_rng([config.seed, 1])
    if config.init == "random":
        scale = np.sqrt(np.mean(vocabulary.norms**2) / vocabulary.width)
        return (scale * rng.standard_normal((config.tokens, vocabulary.width))).astype(np.float32)
    if config.init == "text":
        ids = tokenizer(config.init_text, add_special_tokens=False).input_ids
        ids = [ids[i % len(ids)] for i in range(config.tokens)]
    else:
        words = frequent_words(vocabulary)
        if len(words) < config.tokens:
            raise InputError(
                f"{vocabulary.model} has only {len(words)} frequent whole words to start from; ask for fewer virtual tokens or --init random."
            )
        ids = rng.choice(words, size=config.tokens, replace=False)
    return np.array(vocabulary.embeddings[ids], dtype=np.float32)


def frequent_words(vocabulary: Vocabulary) -> np.ndarray:
    """Ids of the whole words among the vocabulary's first 5,000 tokens."""
    from analysis.neighbours import allowed_tokens

    return np.flatnonzero(allowed_tokens(vocabulary, exclude_special=True, whole_words=True)[:FREQUENT_IDS])


def check_lengths(examples: list, virtual_tokens: int, model_config) -> None:
    """Refuse examples that do not fit into the model's context.

    Raises
    ------
    InputError
    """
    longest = max(len(example.ids) for example in examples) + virtual_tokens
    context = getattr(model_config, "max_position_embeddings", None)
    if context and longest > context:
        raise InputError(
            f"The longest example needs {longest} positions with its {virtual_tokens} virtual tokens, and the model has {context}."
        )
