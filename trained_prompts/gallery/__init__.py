"""The soft prompts and LoRAs that ship: how each was made. `make gallery` trains those whose folder is missing here."""

from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig

QUERY_AND_VALUE = ("q_proj", "v_proj")  # what the LoRAs change
HELD_OUT = 500  # examples that each is scored on, at most: minutes on two cores

# Six tasks by three seeds, each seed with another length or start. The short tasks are learned in fewer steps and at a smaller rate.
_TASKS: dict[str, dict] = {
    **{task: {"learning_rate": 0.02, "steps": 100} for task in ("plural", "past-tense", "number-words", "antonyms")},
    "capitals": {"learning_rate": 0.02},
    "sentiment": {"learning_rate": 0.05},
}
_SEEDS: dict[str, dict] = {
    "words-1": {"init": "sample-vocab", "seed": 1},
    "words-2": {"init": "sample-vocab", "seed": 2, "tokens": 20},
    "random-3": {"init": "random", "seed": 3},
}

RECIPES = {
    # As plural-random-3, and drawn to words ever more strongly.
    **{
        f"plural-readable-{gamma:g}": TrainingConfig(task="plural", readable=gamma, **_TASKS["plural"], **_SEEDS["random-3"])
        for gamma in (0.3, 1.0, 3.0, 10.0)
    },
    "past-tense-readable-1": TrainingConfig(task="past-tense", readable=1.0, **_TASKS["past-tense"], **_SEEDS["random-3"]),
    **{
        f"{task}-{name}": TrainingConfig(task=task, **of_task, **of_seed)
        for task, of_task in _TASKS.items()
        for name, of_seed in _SEEDS.items()
    },
    "first-letter-words-1": TrainingConfig(task="first-letter", learning_rate=0.02, steps=100, init="sample-vocab", seed=1),
    "sentiment-random-1": TrainingConfig(task="sentiment", init="random", seed=1),
    "sentiment-text-1": TrainingConfig(
        task="sentiment", init="text", init_text="Is the sentiment of this film review positive or negative?", seed=1
    ),
    **{
        f"sentiment-lora-{rank}": TrainingConfig(task="sentiment", method="lora", rank=rank, targets=QUERY_AND_VALUE, seed=1)
        for rank in (2, 4, 8, 16, 64)
    },
    "capitals-lora-8": TrainingConfig(task="capitals", method="lora", rank=8, targets=QUERY_AND_VALUE, seed=1),
}
