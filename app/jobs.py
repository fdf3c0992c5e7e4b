"""Training in the background: one run at a time, the others in a queue, each with its progress and a way to stop it.

A job belongs to the server, not to a page: it survives a reload, and its link finds it again. Nothing here draws.
"""

from __future__ import annotations

import logging
import queue
import secrets
import threading
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from analysis.adapters import SoftPrompt
from analysis.errors import InputError
from analysis.models import load_model
from analysis.readings import start_and_now
from analysis.vocabulary import load_vocabulary
from trained_prompts import store
from trained_prompts.evaluation import evaluate_run
from trained_prompts.trainer import TrainingConfig, train

State = Literal["queued", "preparing", "training", "evaluating", "saved", "stopped", "failed"]
UNDER_WAY: tuple[State, ...] = ("queued", "preparing", "training", "evaluating")
KEPT_JOBS = 20
WORDS_EVERY_SECONDS = 1.5


@dataclass(frozen=True, eq=False)
class Progress:
    """What a page may know of a job at one moment.

    Attributes
    ----------
    share : of the present state, 0 to 1.
    losses : step, loss, learning_rate, seconds, one row a step so far.
    words : `readings.start_and_now` of the virtual tokens a moment ago, or None before the first step.
    scores : held-out scores, once evaluated.
    saved_as : the run's name in the store, once saved.
    can_be_kept : whether a job that stopped or failed has learned something that `JobQueue.keep` can save.
    """

    id: str
    name: str
    config: TrainingConfig
    state: State
    doing: str = ""
    share: float = 0.0
    steps_done: int = 0
    losses: pd.DataFrame | None = None
    words: pd.DataFrame | None = None
    words_step: int = 0
    scores: pd.DataFrame | None = None
    saved_as: str | None = None
    error: str | None = None
    can_be_kept: bool = False

    @property
    def under_way(self) -> bool:
        return self.state in UNDER_WAY

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
    stop: threading.Event
    recording: store.Recording | None = None


class JobQueue:
    """Runs jobs one after another in a thread of its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: dict[str, _Job] = {}
        self._waiting: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._language_model: tuple[str, tuple] | None = None  # the worker's own; the last model stays loaded
        threading.Thread(target=self._work, name="training", daemon=True).start()

    def submit(self, config: TrainingConfig, name: str, *, limit: int | None) -> str:
        """Queue a run that is to be kept under `name`, evaluated on `limit` held-out examples; answers the job's id.

        Raises
        ------
        InputError
            The name is taken, also by a job that has not been saved yet.
        """
        with self._lock:
            self._check_name(name)
            job_id = secrets.token_urlsafe(6)
            job = _Job(Progress(job_id, name, config, "queued", doing="waiting"), limit, threading.Event())
            self._jobs[job_id] = job
            ended = [key for key, job in self._jobs.items() if not job.progress.under_way]
            for key in ended[:-KEPT_JOBS]:
                del self._jobs[key]
        self._waiting.put(job)
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
            ids = [key for key, job in self._jobs.items() if job.progress.under_way]
        return ids.index(job_id) if job_id in ids else 0

    def stop(self, job_id: str) -> None:
        """Ask a job to stop; it does so within a step, and what it has learned can still be kept."""
        with self._lock:
            job = self._jobs[job_id]
            job.stop.set()
            if job.progress.state == "queued":  # it need not wait for its turn to end
                job.progress = replace(
                    job.progress,
                    state="stopped",
                    doing=f"stopped after {job.progress.steps_done} steps",
                    can_be_kept=job.recording is not None,
                )

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
                job.progress, name=name, state="queued", doing="waiting to be evaluated", share=0.0, error=None, can_be_kept=False
            )
            self._jobs[job_id] = job  # at the end: it waits behind the others
        self._waiting.put(job)

    def _check_name(self, name: str) -> None:
        store.check_name(name)
        if any(job.progress.name == name and job.progress.under_way for job in self._jobs.values()):
            raise InputError(f"A training called {name} is already in the queue; choose another name.")

    # --- the worker's side ---

    def _work(self) -> None:
        with suppress(Exception):  # a broken installation fails the job that needs it, with its reason
            import peft  # noqa: F401 - takes seconds: while the person still chooses the settings

        while True:
            job = self._waiting.get()
            if job.progress.state != "queued":
                continue  # stopped while it waited
            try:
                self._run(job)
            except _StoppedError:
                self._update(
                    job, state="stopped", doing=f"stopped after {job.progress.steps_done} steps", can_be_kept=job.recording is not None
                )
            except InputError as error:
                self._update(job, state="failed", error=str(error), can_be_kept=job.recording is not None)
            except Exception as error:  # a bug: the page says so, the log has the traceback, the queue goes on
                logging.getLogger(__name__).exception("job %s failed", job.progress.id)
                self._update(
                    job,
                    can_be_kept=job.recording is not None,
                    state="failed",
                    error=f"The training failed unexpectedly ({type(error).__name__}); the server's log says where.",
                )

    def _run(self, job: _Job) -> None:
        def report(share: float, doing: str) -> None:
            _check_stop(job)
            self._update(job, share=share, doing=doing)

        report(0.0, "getting ready")
        config = job.progress.config
        if job.recording is None:
            self._update(job, state="preparing")
            self._train(job, self._load(config.model, report), report)
        language_model = self._load(config.model, report)
        self._update(job, state="evaluating", share=0.0)
        scores = evaluate_run(job.recording, language_model=language_model, limit=job.limit, report=report)
        store.save(job.recording, job.progress.name, scores)
        self._update(job, state="saved", scores=scores, saved_as=job.progress.name, share=1.0, doing="saved")
        job.recording = None

    def _train(self, job: _Job, language_model, report) -> None:
        name, config = job.progress.name, job.progress.config
        recording = store.Recording(config)
        vocabulary = load_vocabulary(config.model)
        words_at = 0.0
        for step in train(config, language_model=language_model, report=report):
            recording.add(step)
            changes: dict = {"share": step.step / config.steps, "steps_done": step.step, "losses": recording.losses()}
            if step.step in (0, config.steps) or step.seconds >= words_at:
                prompt = SoftPrompt(name, step.embeddings, recording.initial, config.model, None, None)
                changes |= {"words": start_and_now(prompt, vocabulary), "words_step": step.step}
                words_at = step.seconds + WORDS_EVERY_SECONDS
            if step.step:
                job.recording = recording
            self._update(job, state="training", doing=f"step {step.step} of {config.steps}", **changes)
            _check_stop(job)

    def _load(self, model: str, report):
        if self._language_model is None or self._language_model[0] != model:
            self._language_model = None  # the old one goes before the new one comes
            self._language_model = (model, load_model(model, report=report))
        return self._language_model[1]

    def _update(self, job: _Job, **changes) -> None:
        with self._lock:
            job.progress = replace(job.progress, **changes)


def _check_stop(job: _Job) -> None:
    if job.stop.is_set():
        raise _StoppedError
