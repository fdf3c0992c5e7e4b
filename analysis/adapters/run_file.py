"""What a run.json says, checked field by field: what somebody else wrote, or another version, is refused in a sentence before anything rests on it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, TypeGuard, get_args

from soft_prompt_explorer.analysis.adapters import run_file
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.core.folders import GALLERY, runs_folder
from soft_prompt_explorer.analysis.core.strange_files import read_file

Method = Literal["prompt-tuning", "p-tuning", "prefix-tuning", "lora", "full"]
Init = Literal["sample-vocab", "text", "random"]
# The settings that only some methods have; a run's description leaves out those of the others.
OF_METHOD: dict[Method, tuple[str, ...]] = {
    "prompt-tuning": ("tokens", "init", "init_text", "readable", "frames"),
    "p-tuning": ("tokens",),
    "prefix-tuning": ("tokens", "init", "init_text"),
    "lora": ("rank", "alpha", "rslora", "targets"),
    "full": (),
}
MAX_TOKENS, MAX_RANK, MAX_STEPS = 200, 1_024, 100_000
MAX_BYTES = 1_000_000
MAX_WHOLE = 2**53
MAX_TEXT = 4_096  # characters; a model or a task may be a path
_NOT_FINITE = ("inf", "-inf", "nan")  # JSON has no number for them; older files have Infinity and NaN


class _Field(NamedTuple):
    """What stands at a place, whether it has to, and the same in words."""

    holds: Callable[[object], bool]
    says: str
    needed: bool = True


def read_run(path: Path) -> dict:
    """What a run.json says; what may be endless or no number (γ, losses and norms of a run that diverged) is a number again.

    Raises
    ------
    InputError
        It cannot be read, is no JSON object, or a field is missing or not what it should be: the sentence names the first such field.
    """
    run = read_object(path)
    for place, field in _expected(run):
        found, where = run, ".".join(place)
        for name in place:
            found = found.get(name, _MISSING) if isinstance(found, dict) else _MISSING
        if found is _MISSING or (found is None and not field.needed):
            if field.needed:
                raise refusal(path, f"{where} is missing ({field.says} is expected)")
        elif not field.holds(found):
            raise refusal(path, f"{where} is {_short(found)}, where {field.says} is expected")
    config, scores, norms = run["config"], run["scores"], run.get("norms") or {}
    run["config"] = {name: value for name, value in config.items() if _is_flat(value)}  # a setting of another version stays as it is
    for values, names in ((run["config"], ["readable"]), (norms, list(norms)), *((score, ["loss"]) for score in scores.values())):
        for name in names:
            if name in values:
                values[name] = float(values[name])
    return run


def read_object(path: Path) -> dict:
    """The JSON object in a small file of a run's folder.

    Raises
    ------
    InputError
        It is not there, no file, too large, or no JSON object.
    """
    try:
        raw = read_file(path, MAX_BYTES)
    except OSError as error:
        raise refusal(path, f"it cannot be read ({error.strerror or type(error).__name__})") from error
    except ValueError as error:
        raise refusal(path, str(error)) from error
    try:
        content = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise refusal(path, "it is not JSON") from error
    if not isinstance(content, dict):
        raise refusal(path, "it is not a JSON object")
    return content


def refusal(path: Path, problem: str) -> InputError:
    """The sentence about a run's or a kept file's own description."""
    return InputError(
        f"{path.name} of {path.parent.name!r} cannot be used: {problem}; mend the file, or move the folder {path.parent} away."
    )


_MISSING = object()


def is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= MAX_TEXT and value.isprintable()


def _whole(low: int, high: int = MAX_WHOLE) -> Callable[[object], bool]:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float = -math.inf, high: float = math.inf) -> Callable[[object], bool]:
    return lambda value: isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 and low <= value <= high


def _any_number(value: object) -> TypeGuard[float | str]:
    return _number()(value) or value in _NOT_FINITE or (type(value) is float and not math.isfinite(value))


def _moment(value: object) -> bool:
    try:
        return isinstance(value, str) and value.isprintable() and len(value) < 40 and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def _names(value: object) -> bool:
    return isinstance(value, list) and len(value) <= 1_000 and all(map(is_text, value))


def _is_flat(value: object) -> bool:
    return (
        value is None
        or isinstance(value, str | int | float)
        or (isinstance(value, list) and all(not isinstance(part, list | dict) for part in value))
    )


_TEXT = _Field(is_text, "a short text")
_SHARE = _Field(_number(0, 1), "a number from 0 to 1")
_EXPECTED = {
    "name": _TEXT,
    "created": _Field(_moment, "a date and time"),
    "config": _Field(lambda value: isinstance(value, dict), "an object of settings"),
    "config.task": _TEXT,
    "config.model": _TEXT,
    "config.method": _Field(lambda value: value in get_args(Method), f"one of {', '.join(get_args(Method))}"),
    "config.steps": _Field(_whole(1, MAX_STEPS), f"a whole number from 1 to {MAX_STEPS:,}"),
    "config.batch_size": _Field(_whole(1, 256), "a whole number from 1 to 256"),
    "config.learning_rate": _Field(_number(0), "a number from 0"),
    "config.seed": _Field(_whole(0, 2**63 - 1), "a whole number from 0"),
    "config.init": _Field(lambda value: value in get_args(Init), f"one of {', '.join(get_args(Init))}", needed=False),
    "config.init_text": _Field(lambda value: isinstance(value, str) and len(value) <= 100_000 and "".join(value.split()).isprintable(), "a text", needed=False),
    "config.template": _Field(lambda value: isinstance(value, str) and len(value) <= MAX_TEMPLATE, "a text", needed=False),
    "config.readable": _Field(lambda value: _any_number(value) and float(value) >= 0, "a number from 0", needed=False),
    "config.frames": _Field(lambda value: isinstance(value, list) and all(isinstance(frame, str) for frame in value), "a list of texts", needed=False),
    "config.alpha": _Field(_number(0), "a number from 0", needed=False),
    "config.rslora": _Field(lambda value: type(value) is bool, "true or false", needed=False),
    "config.targets": _Field(_names, "a list of names", needed=False),
    "config.validate_every": _Field(_whole(1), "a whole number from 1", needed=False),
    "config.patience": _Field(_whole(1), "a whole number from 1", needed=False),
    "asked": _Field(lambda value: isinstance(value, dict), "an object", needed=False),
    "steps_done": _Field(_whole(0, MAX_STEPS), f"a whole number from 0 to {MAX_STEPS:,}"),
    "seconds_training": _Field(_number(0), "a number of seconds"),
    "trainable_parameters": _Field(_whole(0), "a whole number", needed=False),
    "peak_memory_bytes": _Field(_whole(0), "a whole number", needed=False),
    "computed_in": _Field(lambda value: isinstance(value, dict), "an object", needed=False),
    "computed_in.dtype": _TEXT._replace(needed=False),
    "computed_in.device": _TEXT._replace(needed=False),
    "config.dtype": _TEXT._replace(needed=False),
    "config.checkpointing": _Field(lambda value: type(value) is bool, "true or false", needed=False),
    "config.accumulate": _Field(_whole(1, 256), "a whole number from 1 to 256", needed=False),
    "model": _Field(lambda value: isinstance(value, dict), "an object"),
    "model.name": _TEXT,
    "model.sha256": _TEXT,
    "versions": _Field(lambda value: isinstance(value, dict) and all(map(is_text, [*value, *value.values()])), "versions by package", needed=False),
    "norms": _Field(lambda value: isinstance(value, dict) and all(map(_any_number, value.values())), "an object of numbers", needed=False),
    "scores": _Field(lambda value: isinstance(value, dict) and all(map(is_text, value)), "an object of scores"),
}  # fmt: skip
_OF_METHODS = {
    "tokens": _Field(_whole(1, MAX_TOKENS), f"a whole number from 1 to {MAX_TOKENS}"),
    "rank": _Field(_whole(1, MAX_RANK), f"a whole number from 1 to {MAX_RANK:,}"),
}
_OF_NORMS = {"median": _Field(_any_number, "a number"), "vocabulary_median": _Field(_number(1e-9), "a number above 0")}
_OF_SCORES = {
    "n": _Field(_whole(0), "a whole number"), "measure": _TEXT, "score": _SHARE, "low": _SHARE, "high": _SHARE, "loss": _Field(_any_number, "a number"),
}  # fmt: skip


def _expected(run: dict) -> Iterator[tuple[tuple[str, ...], _Field]]:
    """Every place that is looked at, the outer before what is in it: what comes later rests on what was found right before."""
    yield from ((tuple(place.split(".")), field) for place, field in _EXPECTED.items())
    for name, field in _OF_METHODS.items():
        if name in OF_METHOD[run["config"]["method"]]:
            yield ("config", name), field
    if run.get("norms") is not None:
        yield from ((("norms", name), field) for name, field in _OF_NORMS.items())
    if run.get("asked") is not None:
        yield ("asked", "first_example"), _Field(lambda value: isinstance(value, str) and value.isprintable(), "a text on one line")
    for prompt in run["scores"]:
        yield ("scores", prompt), _Field(lambda value: isinstance(value, dict), "an object")
        yield from ((("scores", prompt, name), field) for name, field in _OF_SCORES.items())


def _short(value: object) -> str:
    """What was found, on one line."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if type(value) is int and abs(value) > MAX_WHOLE:
        return "a number too large"
    return ascii(value)[:60]


MAX_TEMPLATE = 20_000  # characters


def in_store(path: Path) -> Path | None:
    """The folder, where it is one of the gallery's or of the person's own runs: what lies in another says what somebody else put there."""
    folder = path.resolve()
    return folder if folder.parent in (GALLERY.resolve(), runs_folder().resolve()) else None


def read_description(path: Path) -> dict:
    """The run.json of a run's folder, checked.

    Raises
    ------
    InputError
        As `run_file.read_run`.
    """
    return run_file.read_run(path / "run.json")
