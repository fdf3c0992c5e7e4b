"""SuperGLUE's eight tasks (Wang et al. 2019), from a folder in the official JSON-lines layout or from the hub, worded as T5 words them.

The wording is that of Raffel et al. 2020, appendix D, which shows six of the eight, and of T5's own code for the order of the fields in BoolQ and
ReCoRD. It differs in two things: the models here are causal, so `Answer:` follows; and WiC's part of speech, which the appendix shows, stands
neither in the files nor in T5's code. The labels of `test.jsonl` were never published, so that file is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks.task import SPLIT_SEED, Task

TEMPLATE = "{input}\nAnswer:"
MAX_BYTES = 200_000_000  # of one file
HUB = "aps/super_glue"


def superglue_task(folder: Path, name: str) -> Task:
    """One task of a folder of SuperGLUE.

    Where there is a `val.jsonl`, it is the held-out split; else a third of `train.jsonl` is, drawn once and for all, and examples of one passage
    (premise, word, text) are all on the same side.

    Parameters
    ----------
    folder : holds `BoolQ/train.jsonl` and the like.
    name : `BoolQ`, `boolq` or `superglue-boolq`.

    Raises
    ------
    InputError : the name is unknown, or the folder has no such task; what is wrong within a file is said when the examples are first asked for.
    """
    kind = _kind(name)
    found = [path for path in _folders(folder) if path.name.lower() == kind.name]
    train = found[0] / "train.jsonl" if found else folder / kind.folder / "train.jsonl"
    if not train.is_file():
        raise InputError(f"There is no {train}; give the folder that holds {kind.folder}/train.jsonl, as SuperGLUE's own archives do.")
    held_out = train.with_name("val.jsonl")
    files = (train, held_out) if held_out.is_file() else (train,)
    split = "val.jsonl held out" if len(files) == 2 else "a third of train.jsonl held out, because there is no val.jsonl"
    return _task(kind, f"SuperGLUE's {kind.folder} in {train.parent} ({split})", _FromFiles(kind.name, files, _stamps(files)))


def superglue_tasks(folder: Path) -> list[Task]:
    """All tasks of SuperGLUE that a folder holds, in the benchmark's order."""
    there = {path.name.lower() for path in _folders(folder) if (path / "train.jsonl").is_file()}
    if not there & set(_KINDS):
        raise InputError(f"{folder} holds none of SuperGLUE's tasks; expected are folders such as {_FOLDERS}, each with a train.jsonl.")
    return [superglue_task(folder, name) for name in _KINDS if name in there]


def from_hub(name: str) -> Task:
    """One task of SuperGLUE from the Hugging Face hub, its validation split held out; nothing is fetched before the examples are asked for.

    Parameters
    ----------
    name : `boolq` or `superglue-boolq`.
    """
    kind = _kind(name)
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise InputError(
            "SuperGLUE comes from the hub through the package datasets, which is not installed; install it with `pip install datasets`, "
            f"or name a folder that holds {kind.folder}/train.jsonl."
        ) from None
    return _task(kind, f"SuperGLUE's {kind.folder} on the hub, {HUB} (validation held out)", _FromHub(kind.name))


# ---- the eight tasks


class _LineError(ValueError):
    """What is wrong with a line, as it continues "The line … holds"."""


def _one_row(line: dict, number: int) -> list[dict]:
    return [line]


@dataclass(frozen=True)
class _Kind:
    """One of the eight tasks.

    Attributes
    ----------
    folder : its name in the official layout; in lower case, its name everywhere else.
    labels : what the targets are, in the order of the hub's numbers, or None for free text.
    example : from one row to its input, its target and what else its scoring needs.
    kept_together : the field that examples on the two sides of a split never share.
    rows : from a line of the official file and its number to rows as the hub has them: one a line, but for the nested files.
    """

    folder: str
    description: str
    labels: tuple[str, ...] | None
    example: Callable[[dict], dict]
    kept_together: str
    prompts: tuple[str, ...]
    rows: Callable[[dict, int], Iterable[dict]] = _one_row
    scoring: str = ""

    @property
    def name(self) -> str:
        return self.folder.lower()


def _kind(name: str) -> _Kind:
    kind = _KINDS.get(name.lower().removeprefix("superglue-"))
    if kind is None:
        raise InputError(f"No task of SuperGLUE is called {name[:80]!r}; name one of its folders, {_FOLDERS}.")
    return kind


def _task(kind: _Kind, source: str, load: Callable[[], pd.DataFrame]) -> Task:
    return Task(
        name=f"superglue-{kind.name}",
        description=kind.description,
        template=TEMPLATE,
        labels=None if kind.labels is None else tuple(f" {label}" for label in kind.labels),
        source=source,
        load=load,
        prompts=kind.prompts,
        scoring=kind.scoring,
    )


def _labelled(row: dict, *, task: str, labels: tuple[str, ...], **fields: str) -> dict:
    return {"input": _headed(row, task, **fields), "target": _label(row, labels)}


def _headed(row: dict, task: str, **fields: str) -> str:
    """The task's name and then each field after its heading: `rte sentence1: … sentence2: …`."""
    return " ".join([task, *(f"{heading}: {_text(row, name)}" for heading, name in fields.items())])


def _multirc(row: dict) -> dict:
    example = _labelled(row, task="multirc", labels=_TRUTH, question="question", answer="answer", paragraph="paragraph")
    index = _get(row, "idx", dict, "an object")
    text = re.sub(r"</?b>", "", example["input"].replace("<br>", " "))
    return example | {"input": text, "group": f"{index.get('paragraph')}.{index.get('question')}"}


def _multirc_rows(line: dict, number: int) -> Iterator[dict]:
    passage = _get(line, "passage", dict, "an object")
    for place, question in enumerate(_objects(passage, "questions")):
        for answer in _objects(question, "answers"):
            yield {
                "paragraph": passage.get("text"),
                "question": question.get("question"),
                "answer": answer.get("text"),
                "label": answer.get("label"),
                "idx": {"paragraph": number, "question": place},
            }


def _record(row: dict) -> dict:
    passage = re.sub(r"([.?!\"'])\n@highlight\n", r"\1 ", _text(row, "passage")).replace("\n@highlight\n", ". ")
    entities, answers = ", ".join(_texts(row, "entities")), _texts(row, "answers")
    text = f"record query: {_text(row, 'query')} entities: {entities} passage: {passage}"
    return {"input": text, "target": answers[0], "answers": answers}


def _record_rows(line: dict, number: int) -> Iterator[dict]:
    passage = _get(line, "passage", dict, "an object")
    text = _text(passage, "text")
    entities = sorted({_span(text, entity) for entity in _objects(passage, "entities")})
    for query in _objects(line, "qas"):
        answers = sorted({_text(answer, "text") for answer in _objects(query, "answers")})
        yield {"passage": text, "query": query.get("query"), "entities": entities, "answers": answers}


def _span(text: str, entity: dict) -> str:
    start, end = (_get(entity, place, int, "a whole number") for place in ("start", "end"))
    if not 0 <= start <= end < len(text):
        raise _LineError(f"an entity from {start} to {end} of a passage of {len(text)} characters")
    return text[start : end + 1]


def _wsc(row: dict) -> dict:
    target = _text(row, "span1_text").strip()
    if not target:
        raise _LineError("nothing under 'span1_text'")
    marked = _marked(_text(row, "text"), _text(row, "span2_text").strip(), _get(row, "span2_index", int, "a whole number"))
    return {"input": f"wsc: {marked}", "target": target, "refers": _label(row, _TRUTH) == "True"}


def _wsc_rows(line: dict, number: int) -> list[dict]:
    return [_get(line, "target", dict, "an object") | {"text": line.get("text"), "label": line.get("label")}]


def _marked(text: str, pronoun: str, index: int) -> str:
    """The text with asterisks around the pronoun that is its word number `index`, or around the pronoun next to it where the number is off."""
    words = list(re.finditer(r"\S+", text))
    if not 0 <= index < len(words):
        raise _LineError(f"a pronoun at word {index} of a text of {len(words)} words")
    there = [match for match in re.finditer(rf"(?<!\w){re.escape(pronoun)}(?!\w)", text, re.IGNORECASE) if pronoun]
    start, end = min((match.span() for match in there), key=lambda span: abs(span[0] - words[index].start()), default=words[index].span())
    return f"{text[:start]}*{text[start:end]}*{text[end:]}"


_TRUTH = ("False", "True")
_CLAIMS = ("entailment", "contradiction", "neutral")
_ENTAILMENT = ("entailment", "not_entailment")
_CHOICES = ("choice1", "choice2")

_KINDS: dict[str, _Kind] = {
    kind.name: kind
    for kind in (
        _Kind(
            folder="BoolQ",
            description="Answer a yes-or-no question about a passage with True or False.",
            labels=_TRUTH,
            example=partial(_labelled, task="boolq", labels=_TRUTH, passage="passage", question="question"),
            kept_together="passage",
            prompts=(
                "{input}\nTrue or False?",
                "Read the passage. If the answer to the question is yes, answer True; if it is no, answer False.\n\n{input}\nThe answer is",
            ),
        ),
        _Kind(
            folder="CB",
            description="Say whether the writer of a premise holds a hypothesis to be true, false or neither.",
            labels=_CLAIMS,
            example=partial(_labelled, task="cb", labels=_CLAIMS, hypothesis="hypothesis", premise="premise"),
            kept_together="premise",
            scoring="cb",
            prompts=(
                "{input}\nEntailment, contradiction or neutral?",
                "If the premise says that the hypothesis is true, answer entailment; if it says that the hypothesis is false, answer contradiction; "
                "if it leaves that open, answer neutral.\n\n{input}\nThe relation is",
            ),
        ),
        _Kind(
            folder="COPA",
            description="Choose which of two sentences is the cause, or the effect, of a premise.",
            labels=_CHOICES,
            example=partial(
                _labelled, task="copa", labels=_CHOICES, choice1="choice1", choice2="choice2", premise="premise", question="question"
            ),
            kept_together="premise",
            prompts=(
                "{input}\nchoice1 or choice2?",
                "The question asks for the cause or for the effect of the premise. Answer with the more plausible of the two choices, choice1 or "
                "choice2.\n\n{input}\nThe more plausible one is",
            ),
        ),
        _Kind(
            folder="MultiRC",
            description="Say whether an answer to a question about a paragraph is right, True or False; several answers to a question can be.",
            labels=_TRUTH,
            example=_multirc,
            kept_together="paragraph",
            rows=_multirc_rows,
            scoring="multirc",
            prompts=(
                "{input}\nTrue or False?",
                "Read the paragraph. If it shows that the answer to the question is right, say True; if not, say False.\n\n{input}\nThe answer is",
            ),
        ),
        _Kind(
            folder="ReCoRD",
            description="Name the entity that fills the gap, @placeholder, in a query about a news passage.",
            labels=None,
            example=_record,
            kept_together="passage",
            rows=_record_rows,
            scoring="record",
            prompts=(
                "{input}\n@placeholder is",
                "Read the passage. One of the entities belongs in the place of @placeholder in the query. Answer with that entity alone.\n\n"
                "{input}\nThe entity is",
            ),
        ),
        _Kind(
            folder="RTE",
            description="Say whether one sentence follows from another: entailment or not_entailment.",
            labels=_ENTAILMENT,
            example=partial(_labelled, task="rte", labels=_ENTAILMENT, sentence1="premise", sentence2="hypothesis"),
            kept_together="premise",
            prompts=(
                "{input}\nEntailment or not?",
                "If sentence2 must be true when sentence1 is true, answer entailment; if not, answer not_entailment.\n\n{input}\nThe relation is",
            ),
        ),
        _Kind(
            folder="WiC",
            description="Say whether a word means the same in two sentences, True or False.",
            labels=_TRUTH,
            example=partial(_labelled, task="wic", labels=_TRUTH, sentence1="sentence1", sentence2="sentence2", word="word"),
            kept_together="word",
            prompts=(
                "{input}\nThe same?",
                "If the word has the same meaning in both sentences, answer True; if it has two different meanings, answer False.\n\n"
                "{input}\nThe answer is",
            ),
        ),
        _Kind(
            folder="WSC",
            description="Name what the pronoun between asterisks stands for.",
            labels=None,
            example=_wsc,
            kept_together="text",
            rows=_wsc_rows,
            scoring="wsc",
            prompts=(
                "{input}\nWho or what?",
                "One pronoun in this text stands between asterisks. Answer with the words of the text that it stands for.\n\n"
                "{input}\nThe pronoun stands for",
            ),
        ),
    )
}
_FOLDERS = ", ".join(kind.folder for kind in _KINDS.values())


# ---- the fields of a row


def _get(row: dict, name: str, kind: type, expected: str):
    value = row.get(name)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _LineError(f"no field {name!r}" if name not in row else f"a {name!r} that is not {expected}")
    return value


def _text(row: dict, name: str) -> str:
    text = _get(row, name, str, "a text")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _LineError(f"half a character under {name!r}") from None
    return text


def _texts(row: dict, name: str) -> tuple[str, ...]:
    """A list of texts of which none is empty, with one text or more."""
    texts = tuple(_text({name: text}, name).strip() for text in _get(row, name, list, "a list"))
    if not texts or not all(texts):
        raise _LineError(f"an empty text, or none at all, under {name!r}")
    return texts


def _objects(row: dict, name: str) -> list[dict]:
    return [_get({name: value}, name, dict, "a list of objects") for value in _get(row, name, list, "a list of objects")]


def _label(row: dict, labels: tuple[str, ...]) -> str:
    """The label, which the files and the hub give as a truth value, as a number, or in words."""
    if "label" not in row:
        raise _LineError("no field 'label'")
    label = row["label"]
    if isinstance(label, int) and not isinstance(label, bool) and 0 <= label < len(labels):
        return labels[label]
    if str(label) in labels:
        return str(label)
    raise _LineError(f"the label {str(label)[:80]!r}, which is none of {', '.join(labels)}")


# ---- reading


@dataclass(frozen=True)
class _FromFiles:
    """Loads a task from its files, training examples first. Equal while the files are the same, so that they are read once a process."""

    name: str
    files: tuple[Path, ...]
    stamps: tuple[tuple[int, int], ...]

    def __call__(self) -> pd.DataFrame:
        kind = _KINDS[self.name]
        return _with_splits([_examples(kind, _lines(path), kind.rows, path) for path in self.files], self.files[0])


@dataclass(frozen=True)
class _FromHub:
    """Loads a task from the hub, or from what `datasets` has kept of it."""

    name: str

    def __call__(self) -> pd.DataFrame:
        from datasets import load_dataset

        kind = _KINDS[self.name]
        try:
            # As T5 has it: not all spans of the plain wsc are words of its text.
            splits = load_dataset(HUB, "wsc.fixed" if self.name == "wsc" else self.name)
            tables = [splits["train"], splits["validation"]]
        except Exception as error:  # whatever the network, the hub or the cache may have
            raise InputError(
                f"SuperGLUE's {kind.folder} could not be fetched from {HUB} ({type(error).__name__}: {str(error)[:200]}); try again with a network, "
                f"or name a folder that holds {kind.folder}/train.jsonl."
            ) from error
        return _with_splits([_examples(kind, enumerate(table, 1), _one_row, HUB) for table in tables], HUB)


def _folders(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_dir())
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read ({error.strerror}); name the folder that holds {_FOLDERS}.") from error


def _stamps(files: tuple[Path, ...]) -> tuple[tuple[int, int], ...]:
    stats = [path.stat() for path in files]
    for path, stat in zip(files, stats, strict=True):
        if stat.st_size > MAX_BYTES:
            raise InputError(f"{path} has {stat.st_size:,} bytes; files of up to {MAX_BYTES:,} are read, so give the first lines of it.")
    return tuple((stat.st_size, stat.st_mtime_ns) for stat in stats)


def _lines(path: Path) -> Iterator[tuple[int, object]]:
    """The number and the JSON value of each line that is not blank."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, _json(line, f"Line {number} of {path}")
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check that you may read it.") from error


def _json(line: bytes, place: str) -> object:
    try:
        return json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{place} is no UTF-8 from byte {error.start} on; save the file as UTF-8.") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is no JSON ({error}); a file of SuperGLUE has one JSON object a line.") from None


def _examples(kind: _Kind, lines: Iterable[tuple[int, object]], rows: Callable[[dict, int], Iterable[dict]], source) -> pd.DataFrame:
    """One row an example: input, target, what its scoring needs, and kept_together."""
    examples = []
    for number, line in lines:
        try:
            if not isinstance(line, dict):
                raise _LineError("no JSON object")
            examples += [kind.example(row) | {"kept_together": row[kind.kept_together]} for row in rows(line, number)]
        except _LineError as error:
            raise InputError(
                f"Line {number} of {source} holds {error}; give it the fields that SuperGLUE's own {kind.folder} has."
            ) from None
    if not examples:
        raise InputError(f"{source} holds no examples; {kind.folder} has one JSON object a line.")
    return pd.DataFrame(examples)


def _with_splits(tables: list[pd.DataFrame], source) -> pd.DataFrame:
    """The examples of a training and a held-out table, or of one table of which a third is held out, in an order drawn once and for all."""
    tables = [_in_drawn_order(table) for table in tables]
    if len(tables) == 1:
        whole = tables[0]
        held_out = _place_of_first(whole) < len(whole) // 3
        tables = [whole[~held_out], whole[held_out]]
    train, held_out = _to_learn_from(tables[0]), tables[1]
    if train.empty or held_out.empty:
        raise InputError(f"{source} holds too few examples to learn from some and hold out others; give more, or a val.jsonl beside it.")
    table = pd.concat([train.assign(split="train"), held_out.assign(split="held-out")], ignore_index=True)
    return table.drop(columns="kept_together").assign(target=" " + table["target"].astype("str"))


def _in_drawn_order(table: pd.DataFrame) -> pd.DataFrame:
    """What is kept together stays together and in its order, so that a part of the table has whole questions, all but the last."""
    codes, distinct = pd.factorize(table["kept_together"])
    drawn = np.random.default_rng(SPLIT_SEED).permutation(len(distinct))
    return table.iloc[np.argsort(drawn[codes], kind="stable")].reset_index(drop=True)


def _place_of_first(table: pd.DataFrame) -> pd.Series:
    """For each row, the place of the first of the rows that it is kept together with."""
    return pd.Series(np.arange(len(table))).groupby(table["kept_together"]).transform("min")


def _to_learn_from(table: pd.DataFrame) -> pd.DataFrame:
    """As T5 trains: on every right answer of ReCoRD as an example of its own, and only on the spans of WSC that the pronoun does stand for."""
    if "refers" in table:
        return table[table["refers"]]
    if "answers" in table:
        return table.assign(target=table["answers"]).explode("target")
    return table
