"""A prompt as a page has it: what its parts are handed."""

from __future__ import annotations

from dataclasses import dataclass

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.behaviour.templates import Asked
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.tasks.task import Task
from soft_prompt_explorer.app.parts import choosing


@dataclass(frozen=True, eq=False)
class PromptOnPage:
    """A prompt beside the vocabulary that it is read against.

    Attributes
    ----------
    key : what links call it.
    """

    key: str
    prompt: SoftPrompt
    vocabulary: Vocabulary

    @property
    def content(self) -> tuple:
        """What tells it from any other, for the key of what is computed from it."""
        return self.vocabulary.model, choosing.content_of([self.prompt])


@dataclass(frozen=True, eq=False)
class AskedPrompt(PromptOnPage):
    """A prompt that the model is asked about.

    Attributes
    ----------
    how : the task, and the template that it is asked with.
    limit : the number of held-out examples that the person wants asked; `available` is how many the task has.
    as_trained : whether it is a run of this machine, asked on its own task as it was trained.
    yours : whether it is a run of the person's own.
    """

    how: Asked
    limit: int
    available: int
    as_trained: bool
    yours: bool

    @property
    def task(self) -> Task:
        return self.how.task

    @property
    def n(self) -> int:
        """How many held-out examples are asked."""
        return min(self.limit, self.available)

    @property
    def asked_content(self) -> tuple:
        """`content`, and what is asked."""
        return *self.content, self.task.name, self.task.template
