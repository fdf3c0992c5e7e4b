"""Training in the background: one run at a time, the others in a queue, each with its progress and a way to stop it.

A job belongs to the server, not to a page: it survives a reload, and its link finds it again. What a run has learned outlives the server: a training
that was stopped, or that the server's end cut off, is in `JobQueue.unfinished` and goes on where it was. Nothing here draws.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.adapters import SoftPrompt
from soft_prompt_explorer.analysis.adapters.soft_prompt import DRAWN_TO_WORDS
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.late import whole_torch
from soft_prompt_explorer.analysis.core.progress import Report
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.models.weights import LanguageModel, load_model
from soft_prompt_explorer.analysis.prompts.null import null_of
from soft_prompt_explorer.analysis.prompts.projection import AXES, VocabularyMap, map_is_made, place, vocabulary_map
from soft_prompt_explorer.analysis.prompts.verdicts import readings
from soft_prompt_explorer.app.server import at_hand
from soft_prompt_explorer.trained_prompts.runs import recorded as runs
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.recording import Recording, checkpoint_path
from soft_prompt_explorer.trained_prompts.runs.recording import unfinished as unfinished_
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from soft_prompt_explorer.trained_prompts.training.config import TrainingConfig
from soft_prompt_explorer.trained_prompts.training.memory import check_fits
from soft_prompt_explorer.trained_prompts.training.settling import settled
from soft_prompt_explorer.trained_prompts.training.trainer import DivergedError, TrainingStep

State = Literal["queued", "preparing", "training", "evaluating", "saved", "stopped", "failed"]
UNDER_WAY: tuple[State, ...] = ("queued", "preparing", "training", "evaluating")
KEPT_JOBS = 20
WAITING = 5  # trainings of one session that wait for their turn
LOOK_EVERY_SECONDS = 1.5
LOOK_SHARE = 0.2  # of the time, at most, goes into looking
KEPT_LOOKS = 60  # beyond, every other one is let go
ON_MAP = AXES[:2]


@dataclass(frozen=True, eq=False)
class Progress:
    """What a page may know of a job at one moment.

    Attributes
    ----------
    share : of the present state, 0 to 1.
    losses : step, loss, learning_rate, seconds, validation; one row a step so far.
    looks : `readings.readings` of the virtual tokens every few steps, one look under the other, after the column step; x and y, their places on the map
        of the vocabulary, are missing where that map was never made. None before the first look, and for methods without virtual tokens.
    trainable : number of parameters that are learned, once known.
    scores : held-out scores, once evaluated.
    saved_as : the run's name in the store, once saved.
    can_be_kept : whether a job that stopped or failed has learned something that `JobQueue.keep` can save.
    can_go_on : whether `JobQueue.resume` goes on where it stopped.
    trained_as : the name that its checkpoint has, whatever name it is then kept under.
    """

    id: str
    name: str
    config: TrainingConfig
    state: State
    doing: str = ""
    share: float = 0.0
    steps_done: int = 0
    losses: pd.DataFrame | None = None
    looks: pd.DataFrame | None = None
    trainable: int | None = None
    scores: pd.DataFrame | None = None
    saved_as: str | None = None
    error: str | None = None
    can_be_kept: bool = False
    can_go_on: bool = False
    trained_as: str = ""

    @property
    def under_way(self) -> bool:
        return self.state in UNDER_WAY

    @property
    def words(self) -> pd.DataFrame | None:
        """The last look."""
        return None if self.looks is None else self.looks[self.looks["step"] == self.looks["step"].iloc[-1]]

    @property
    def seconds_left(self) -> float | None:
        """Of training, by the last twenty steps' pace."""
        if self.losses is None or len(self.losses) < 3:
            return None
        recent = self.losses["seconds"].tail(20)
        return (recent.iloc[-1] - recent.iloc[0]) / (len(recent) - 1) * (self.config.steps - self.steps_done)


class _StoppedError(Exception):
    """Raised inside a job when its person asked it to stop."""


@dataclass(eq=False)
class _Job:
    progress: Progress
    limit: int | None
    session: str
    stop: threading.Event
    recording: Recording | None = None

    @property
    def ended(self) -> dict:
        """What is to be said of a job that stopped or failed."""
        learned = self.recording is not None and self.recording.steps_done > 0
        return {"can_be_kept": learned, "can_go_on": checkpoint_path(self.progress.trained_as).is_file()}


def config_of(described: dict) -> TrainingConfig:
    """The settings that `TrainingConfig.described` told, for instance in `JobQueue.unfinished`.

    Raises
    ------
    InputError
        They are no settings of this version, or of a task that is not there any more.
    """
    try:
        settings: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in described.items()}
        return TrainingConfig(**settings)
    except TypeError as error:
        raise InputError("This training was begun by another version of the explorer, so it cannot go on; discard it.") from error


class JobQueue:
    """Runs jobs one after another in a thread of its own; sessions take turns, so that one with many does not hold up another with one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._jobs: dict[str, _Job] = {}
        self._came = threading.Condition(self._lock)
        self._waiting: list[_Job] = []
        self._served: dict[str, int] = {}  # when the latest job of each session was begun, by number
        self._language_model: tuple[tuple, LanguageModel] | None = None  # the worker's own; the last model stays loaded
        threading.Thread(target=self._work, name="training", daemon=True).start()

    def submit(self, config: TrainingConfig, name: str, *, limit: int | None, session: str = "") -> str:
        """Queue a run that is to be kept under `name`, evaluated on `limit` held-out examples; answers the job's id.

        An unfinished run of that name goes on where it was, and its job, if this server still has it, makes room for the new one.

        Raises
        ------
        InputError
            The name is taken, also by a job that has not been saved yet or by a training of another process, or is that of an unfinished run with other
            settings; the session has `WAITING` jobs that wait; or the training does not fit into the memory.
        """
        check_fits(config)
        with self._lock:
            self._check_name(name)
            if sum(job.session == session and job.progress.state == "queued" for job in self._waiting) >= WAITING:
                raise InputError(f"You have {WAITING} trainings that wait for their turn; wait until one of them begins, or stop one.")
            if checkpoint_path(name).is_file():
                self._check_goes_on(config, name)
                self._let_go(name)
            job_id = secrets.token_urlsafe(6)
            job = _Job(Progress(job_id, name, config, "queued", doing="waiting", trained_as=name), limit, session, threading.Event())
            self._jobs[job_id] = job
            ended = [key for key, job in self._jobs.items() if not job.progress.under_way]
            for key in ended[:-KEPT_JOBS]:
                del self._jobs[key]
            self._put(job)
        return job_id

    def get(self, job_id: str) -> Progress | None:
        with self._lock:
            return self._jobs[job_id].progress if job_id in self._jobs else None

    def all(self) -> list[Progress]:
        """The newest first."""
        with self._lock:
            return [job.progress for job in reversed(self._jobs.values())]

    def ahead_of(self, job_id: str) -> int:
        """How many jobs run or wait before this one."""
        with self._lock:
            running = [job for job in self._jobs.values() if job.progress.under_way and job not in self._waiting]
            ids = [job.progress.id for job in (*running, *self._in_turn())]
        return ids.index(job_id) if job_id in ids else 0

    def unfinished(self) -> pd.DataFrame:
        """`store.unfinished` without what is under way."""
        table = unfinished_()
        with self._lock:
            busy = [job.progress.trained_as for job in self._jobs.values() if job.progress.under_way]
        return table[~table["name"].isin(busy)].reset_index(drop=True)

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; it does so within a step, can then go on, and what it has learned can be kept."""
        with self._lock:
            job = self._jobs[job_id]
            job.stop.set()
            if job.progress.state == "queued":  # it need not wait for its turn to end
                job.progress = replace(job.progress, state="stopped", doing=f"stopped after {job.progress.steps_done} steps", **job.ended)

    def resume(self, job_id: str) -> str:
        """Queue a job that was stopped again, to go on where it was; answers the new job's id.

        Raises
        ------
        InputError
            As `submit`.
        """
        with self._lock:
            job = self._jobs[job_id]
        return self.submit(job.progress.config, job.progress.trained_as, limit=job.limit, session=job.session)

    def keep(self, job_id: str, name: str) -> None:
        """Evaluate and save, under a name that may be new, what a job that stopped or failed has learned.

        Raises
        ------
        InputError
            The name is taken.
        """
        with self._lock:
            job = self._jobs[job_id]
            if job.progress.under_way or job.recording is None:
                return
            self._check_name(name)
            del self._jobs[job_id]
            job = replace(job, stop=threading.Event())
            job.progress = replace(
                job.progress, name=name, state="queued", doing="waiting to be evaluated", share=0.0, error=None, can_be_kept=False, can_go_on=False
            )  # fmt: skip
            self._jobs[job_id] = job  # at the end: it waits behind the others
            self._put(job)

    def discard(self, name: str) -> None:
        """Let go of an unfinished run, and of what it has learned; one that is under way is left alone.

        Raises
        ------
        InputError
            Another process trains it.
        """
        with self._lock:
            if any(job.progress.trained_as == name and job.progress.under_way for job in self._jobs.values()):
                return
            with runs.claimed(name):
                self._let_go(name)
                runs.forget(name)

    def _check_name(self, name: str) -> None:
        store.check_name(name)
        if any(name in (job.progress.name, job.progress.trained_as) and job.progress.under_way for job in self._jobs.values()):
            raise InputError(f"A training called {name} is already in the queue; choose another name.")
        with runs.claimed(name):  # refused where another process trains it
            pass

    def _put(self, job: _Job) -> None:
        with self._came:
            self._waiting.append(job)
            self._came.notify()

    def _in_turn(self) -> list[_Job]:
        """Those that wait, in the order in which they will be begun: the session that was served longest ago comes first, and of its jobs the oldest."""
        waiting, served, order = [job for job in self._waiting if job.progress.state == "queued"], dict(self._served), []
        while waiting:
            job = min(waiting, key=lambda job: served.get(job.session, 0))
            waiting.remove(job)
            order.append(job)
            served[job.session] = max(served.values(), default=0) + 1
        return order

    def _take(self) -> _Job:
        """The job whose turn it is, once there is one."""
        with self._came:
            while not (order := self._in_turn()):
                self._waiting.clear()  # what is left was stopped while it waited
                self._came.wait()
            job = order[0]
            self._waiting.remove(job)
            self._served[job.session] = max(self._served.values(), default=0) + 1
            return job

    def _check_goes_on(self, config: TrainingConfig, name: str) -> None:
        kept = unfinished_().set_index("name")["config"]
        if name in kept.index and kept[name] != settled(config).described():
            raise InputError(
                f"An unfinished training called {name} has other settings; resume or discard it in the list of unfinished trainings, or choose another name."
            )

    def _let_go(self, name: str) -> None:
        for key in [
            key for key, job in self._jobs.items() if job.progress.trained_as == name and job.progress.state in ("stopped", "failed")
        ]:
            del self._jobs[key]

    # --- the worker's side ---

    def _work(self) -> None:
        while True:
            job = self._take()
            try:
                whole_torch()
                with runs.claimed(job.progress.trained_as), runs.claimed(job.progress.name):
                    store.check_name(job.progress.name)
                    scores = self._run(job)
                self._update(job, state="saved", scores=scores, saved_as=job.progress.name, share=1.0, doing="saved")
                job.recording = None
            except _StoppedError:
                self._update(job, state="stopped", doing=f"stopped after {job.progress.steps_done} steps", **job.ended)
            except DivergedError as error:  # it would do so again: there is nothing to go on with
                self._update(job, state="failed", error=error.worded("page"), **job.ended | {"can_go_on": False})
            except InputError as error:
                self._update(job, state="failed", error=error.worded("page"), **job.ended)
            except Exception as error:  # a bug: the page says so, the log has the traceback, the queue goes on
                logging.getLogger(__name__).exception("job %s failed", job.progress.id)
                sentence = f"The training failed unexpectedly ({type(error).__name__}); the server's log says where."
                self._update(job, state="failed", error=sentence, **job.ended)

    def _run(self, job: _Job) -> pd.DataFrame:
        """Train, score and save a job; answers its scores."""

        def report(share: float, doing: str) -> None:
            _check_stop(job)
            self._update(job, share=share, doing=doing)

        report(0.0, "getting ready")
        config = job.progress.config
        if job.recording is None:
            self._update(job, state="preparing")
            self._train(job, report)
        language_model = self._load(config, report)
        self._update(job, state="evaluating", share=0.0)
        assert job.recording is not None
        scores = evaluate_run(job.recording, language_model=language_model, limit=job.limit, report=report)
        store.save(job.recording, job.progress.name, scores)
        runs.forget(job.progress.trained_as)
        return scores

    def _train(self, job: _Job, report: Report) -> None:
        config = job.progress.config
        language_model = self._load(config, report)
        looks = _Looks(job.progress.name, config, report)
        try:
            made = runs.record(config, job.progress.trained_as, language_model=language_model, limit=job.limit, report=report)
            with closing(made):
                for recording, step in made:
                    job.recording = recording
                    self._update(job, config=recording.config, **_seen(recording, step), **looks.at(step, recording.initial))
                    if job.stop.is_set():
                        if step.step and step.checkpoint is not None:
                            recording.write_checkpoint(checkpoint_path(job.progress.trained_as))
                        break
        except DivergedError:  # the recording has stepped back to the last good state
            if job.recording is not None:
                self._update(job, **_seen(job.recording, job.recording.last_step), **looks.at_the_end(job.recording))
            raise
        except InputError:
            if config.method == "full":  # whose loss is no number: a whole model cannot step back
                job.recording = None
            raise
        if job.recording is not None:
            self._update(job, **looks.at_the_end(job.recording))
        _check_stop(job)

    def _load(self, config: TrainingConfig, report: Report) -> LanguageModel:
        wanted = (config.model, config.dtype, config.device)
        if self._language_model is None or self._language_model[0] != wanted:
            self._language_model = None  # the old one goes before the new one comes
            self._language_model = (wanted, load_model(config.model, dtype=config.dtype, device=config.device, report=report))
        return self._language_model[1]

    def _update(self, job: _Job, **changes) -> None:
        with self._lock:
            job.progress = replace(job.progress, **changes)


class _Looks:
    """How a run's virtual tokens read and where they stand on the map while it learns; for methods without any it sees nothing."""

    def __init__(self, name: str, config: TrainingConfig, report: Report) -> None:
        self._name, self._config, self._next = name, config, 0.0
        self._looks: list[pd.DataFrame] = []
        self._vocabulary: Vocabulary | None = None
        self._map: VocabularyMap | None = None
        if config.method in ("prompt-tuning", "p-tuning"):
            self._vocabulary = at_hand.vocabulary(config.model, report=report)
            null_of(self._vocabulary, report=report)  # drawn once a vocabulary, and kept

    def at(self, step: TrainingStep, initial: np.ndarray | None) -> dict:
        """The changes of a job's progress after this step; none where it is not time to look again."""
        return {} if time.monotonic() < self._next else self._look(step, initial)

    def at_the_end(self, recording: Recording) -> dict:
        """The same when training is over: the last look is at the state that is kept, and none came after it."""
        step = recording.kept
        self._looks = [look for look in self._looks if look["step"].iloc[0] < step.step]
        return self._look(step, recording.initial)

    def _look(self, step: TrainingStep, initial: np.ndarray | None) -> dict:
        rows, vocabulary = step.embeddings, self._vocabulary
        if rows is None or vocabulary is None or not np.isfinite(rows).all():
            return {}
        began = time.monotonic()
        look = readings(self._prompt(rows, initial), vocabulary)
        look.insert(0, "step", step.step)
        self._looks.append(look.assign(**dict(zip(ON_MAP, self._places(rows, vocabulary), strict=True))))
        if len(self._looks) > KEPT_LOOKS:
            del self._looks[1::2]
        self._next = time.monotonic() + max(LOOK_EVERY_SECONDS, (time.monotonic() - began) / LOOK_SHARE)
        return {"looks": pd.concat(self._looks, ignore_index=True)}

    def _prompt(self, rows: np.ndarray, initial: np.ndarray | None) -> SoftPrompt:
        config = self._config
        drawn = {DRAWN_TO_WORDS: f"{config.readable:g}"} if config.readable else {}
        return SoftPrompt(self._name, rows, initial, config.model, config.method, None, drawn)

    def _places(self, rows: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
        """(2, n): made in milliseconds on a map that is there; none is made here, which would take half a minute."""
        if self._map is None and map_is_made(vocabulary):
            self._map = vocabulary_map(vocabulary)
        if self._map is None:
            return np.full((2, len(rows)), np.nan)
        return place(rows - vocabulary.mean, self._map, vocabulary).T


def _seen(recording: Recording, step: TrainingStep) -> dict:
    return {
        "state": "training",
        "doing": f"step {step.step} of {step.steps}",
        "share": step.step / step.steps,
        "steps_done": step.step,
        "losses": recording.losses(),
        "trainable": step.trainable,
    }


def _check_stop(job: _Job) -> None:
    if job.stop.is_set():
        raise _StoppedError
