"""The soft prompts and LoRAs that ship: how each was made. `make gallery` trains those whose folder is missing here."""

from trained_prompts.trainer import TrainingConfig

# Six tasks by three seeds, each seed with another length or start; the rate at which each task was found to learn.
_RATES = {"sentiment": 0.05, "capitals": 0.02, "antonyms": 0.02, "plural": 0.02, "past-tense": 0.02, "number-words-french": 0.02}
_SEEDS: dict[str, dict] = {
    "words-1": {"init": "sample-vocab", "seed": 1},
    "words-2": {"init": "sample-vocab", "seed": 2, "tokens": 20},
    "random-3": {"init": "random", "seed": 3},
}

RECIPES = {
    **{
        f"{task}-{name}": TrainingConfig(task=task, learning_rate=rate, **settings)
        for task, rate in _RATES.items()
        for name, settings in _SEEDS.items()
    },
    "sentiment-random-1": TrainingConfig(task="sentiment", init="random", seed=1),
    "capitals-random-1": TrainingConfig(task="capitals", init="random", seed=1, learning_rate=0.02),
    "sentiment-text-1": TrainingConfig(
        task="sentiment", init="text", init_text="Is the sentiment of this film review positive or negative?", seed=1
    ),
    "capitals-text-1": TrainingConfig(
        task="capitals", init="text", init_text="Name the capital city of the country.", seed=1, learning_rate=0.02
    ),
    **{f"sentiment-lora-{rank}": TrainingConfig(task="sentiment", method="lora", rank=rank, seed=1) for rank in (2, 4, 8, 16, 64)},
    "capitals-lora-8": TrainingConfig(task="capitals", method="lora", rank=8, seed=1),
}
