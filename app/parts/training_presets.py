"""Trainings that begin at a click: what each shows, and how long it takes here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from soft_prompt_explorer.app.parts import widgets
from soft_prompt_explorer.app.parts.training_settings import begin, duration, free_name
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.app.server.jobs import JobQueue
from soft_prompt_explorer.trained_prompts.runs.estimates import estimate
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig


@dataclass(frozen=True)
class Preset:
    """A training with everything chosen.

    Attributes
    ----------
    says : what learns, and from what.
    look : what to look for while it learns.
    limit : held-out examples that it is scored on.
    """

    title: str
    name: str
    says: str
    look: str
    limit: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self) -> TrainingConfig:
        return TrainingConfig(**self.settings)


PRESETS = (
    Preset(
        "Sentiment, in 20 steps",
        "sentiment-in-20-steps",
        "Ten vectors learn to tell good reviews from bad ones. They begin at ten words.",
        "the loss falls, and the nearest words stay those ten.",
        limit=40,
        settings={"task": "sentiment", "steps": 20, "tokens": 10},
    ),
    Preset(
        "Past tense, from random numbers",
        "past-tense-from-random",
        "Ten vectors learn to write the past tense of a verb. They begin at no word.",
        "the score rises, and the vectors come near to no word.",
        limit=50,
        settings={"task": "past-tense", "steps": 80, "tokens": 10, "init": "random", "validate_every": 20},
    ),
    Preset(
        "Capitals, as a LoRA of rank 8",
        "capitals-as-lora",
        "Two thin factors beside the weights learn the capitals of countries.",
        "afterwards, how few of its eight ranks it uses.",
        limit=50,
        settings={"task": "capitals", "method": "lora", "rank": 8, "steps": 40, "validate_every": 20},
    ),
)


def show_presets(queue: JobQueue) -> None:
    """A card each, with the button that begins it."""
    for i, (column, preset) in enumerate(zip(st.columns(len(PRESETS), gap="medium"), PRESETS, strict=True)):
        with column.container(border=True, height="stretch"):
            st.markdown(f"**{preset.title}**")
            st.markdown(f"{preset.says}  \n**Look for:** {preset.look}")
            taken = estimate(preset.config, limit=preset.limit, runs=at_hand.list_runs())
            if taken is not None:
                st.caption(f"About {duration(taken.seconds)} here, an estimate from {taken.basis}.")
            begun = st.button("Train it", type="primary" if i == 0 else "secondary", icon=":material/play_arrow:", key=f"preset-{i}")
            if begun:
                begin(queue, preset.config, free_name(queue, preset.name), preset.limit)
    widgets.model_note()
