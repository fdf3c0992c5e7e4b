"""A run from its settings to its folder: trained with checkpoints, gone on with where it was broken off, scored and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from soft_prompt_explorer.analysis.asking.answers import check_held_out
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.progress import Report, no_report
from soft_prompt_explorer.analysis.models.weights import LanguageModel
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.memory import PeakMemory
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, checkpoint_path
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.runs.work import numbers
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.together import ALONE, Together
from soft_prompt_explorer.trained_prompts.training.trainer import DivergedError, TrainingStep, train

CHECKPOINT_SECONDS = 2.0


@contextmanager
def claimed(name: str, folder: Path | None = None) -> Iterator[None]:
    """Hold a run's name as long as the block: no other process or thread trains, keeps or discards a run of that name meanwhile.

    The system lets go of it where a process ends, however it ends. A thread may claim again what it holds.

    Raises
    ------
    InputError
        Somebody else holds it, or nothing can be written there.
    """
    from filelock import FileLock, Timeout

    path = checkpoint_path(name, folder).with_name(f"{name}.lock")
    lock = FileLock(str(path), is_singleton=True)
    try:
        _acquire(lock, path)
    except Timeout as error:
        raise InputError(
            f"A training called {name} is under way already, on a page or in another process; wait until it has ended, or choose another name."
        ) from error
    except OSError as error:
        raise InputError(f"Runs cannot be kept in {path.parent.parent}: {error.strerror or error}.") from error
    try:
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):  # while it is held: whoever opened it before finds it gone, and makes its own
                path.unlink()
        lock.release()
        with suppress(OSError):  # others hold names there, or are unfinished
            path.parent.rmdir()


def _acquire(lock, path: Path) -> None:
    for attempt in range(20):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(blocking=False)
            return
        except FileNotFoundError:  # the folder went just then, with the last run that was unfinished
            if attempt == 19:
                raise


def record(
    config: TrainingConfig,
    name: str,
    *,
    language_model: LanguageModel,
    limit: int | None = None,
    folder: Path | None = None,
    together: Together = ALONE,
    report: Report = no_report,
) -> Generator[tuple[Recording, TrainingStep], None, None]:
    """Train under a name, which is claimed meanwhile, a checkpoint every two seconds; a run of that name that was broken off goes on where it was.

    Yields the recording and the step just added to it: at once the last step of the run that is gone on with, if there is one. When the loss is no number,
    the recording has gone back to the last good state before the error is raised.

    Parameters
    ----------
    limit : the first so many held-out examples are what it will be scored on; all when None.

    Raises
    ------
    InputError
        What `trainer.train` raises; or the name is claimed by another training, a held-out example is too long for the model, an unfinished run of that name has other settings, or its
        checkpoint cannot be written.
    DivergedError
        The loss is no number.
    """
    with claimed(name, folder):
        yield from _recorded(config, name, language_model, limit, folder, together, report)


def _recorded(
    config: TrainingConfig,
    name: str,
    language_model: LanguageModel,
    limit: int | None,
    folder: Path | None,
    together: Together,
    report: Report,
) -> Iterator[tuple[Recording, TrainingStep]]:
    check_held_out(config.asked_task(), language_model, virtual_tokens=config.described().get("tokens", 0), limit=limit)
    path = checkpoint_path(name, folder)
    recording, state = Recording(config), None
    if path.is_file():
        recording, state = Recording.from_checkpoint(config, path)
        yield recording, recording.last_step
    recording.computed_in = {"dtype": numbers(config.method, language_model.dtype), "device": language_model.device}
    written = time.monotonic()
    with PeakMemory() as memory:
        try:
            for step in train(config, language_model=language_model, resume=state, together=together, report=report):
                recording.add(step)
                if (
                    step.checkpoint is not None
                    and step.step
                    and (time.monotonic() - written > CHECKPOINT_SECONDS or step.step == config.steps)
                ):
                    recording.write_checkpoint(path)
                    written = time.monotonic()
                recording.peak_memory = memory.bytes
                yield recording, step
        except DivergedError:
            recording.step_back()
            raise


def help_to_train(
    config: TrainingConfig, name: str, *, language_model: LanguageModel, together: Together, folder: Path | None = None
) -> None:
    """Make the steps of a run that the first of several processes keeps: from its checkpoint on, where it has one. Nothing is written, and where the loss becomes no number the first
    one says so.

    Raises
    ------
    InputError
        What `trainer.train` raises.
    """
    path = checkpoint_path(name, folder)
    state = Recording.from_checkpoint(config, path)[1] if path.is_file() else None
    with suppress(DivergedError):
        for _ in train(config, language_model=language_model, resume=state, together=together):
            pass


def run(
    config: TrainingConfig,
    name: str,
    *,
    language_model: LanguageModel,
    limit: int | None = None,
    folder: Path | None = None,
    together: Together = ALONE,
    watch: Callable[[TrainingStep], None] = lambda step: None,
    report: Report = no_report,
) -> pd.DataFrame:
    """Train, score on held-out examples, and keep under a name; answers the scores of `evaluation.evaluate_run`.

    Parameters
    ----------
    limit : the first so many held-out examples; all when None.
    folder : where the run is kept, when not among the person's own.
    together : of the first of several processes that train it (`training.together`); the others `help_to_train`.
    watch : called with every step.

    Raises
    ------
    InputError
        As `record`. Where the loss became no number, what was learned before is kept first, and the sentence says so.
    """
    with claimed(name, folder):
        store.check_name(name, folder)
        diverged: DivergedError | None = None
        recording = Recording(config)
        try:
            for made, step in record(
                config, name, language_model=language_model, limit=limit, folder=folder, together=together, report=report
            ):
                recording = made
                watch(step)
        except DivergedError as error:
            if recording.steps_done == 0:
                forget(name, folder)
                raise
            diverged = error
        scores = evaluate_run(recording, language_model=language_model, limit=limit, report=report)
        path = store.save(recording, name, scores, folder=folder)
        forget(name, folder)
        if diverged is not None:
            raise InputError(f"{diverged} What it had learned after step {recording.steps_done} is kept in {path}.") from diverged
        return scores


def forget(name: str, folder: Path | None = None) -> None:
    """Remove what an unfinished run has kept to go on with."""
    path = checkpoint_path(name, folder)
    with suppress(OSError):  # not there; or other runs are unfinished
        path.unlink()
        path.parent.rmdir()
