"""The soft prompts and LoRAs that ship: how each was made. `make gallery` trains those whose folder is missing here."""

from trained_prompts.trainer import TrainingConfig

RECIPES = {
    "sentiment-words-1": TrainingConfig(task="sentiment", init="sample-vocab", seed=1),
    "sentiment-random-1": TrainingConfig(task="sentiment", init="random", seed=1),
    "capitals-words-1": TrainingConfig(task="capitals", init="sample-vocab", seed=1, learning_rate=0.02),
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
