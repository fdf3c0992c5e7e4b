"""The eight tasks from small files written by hand, worded and scored by hand; and the examples in ../shared, where they are there."""

import json
import pickle
import sys
from types import ModuleType

import pandas as pd
import pytest

from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.analysis.tasks import superglue
from soft_prompt_explorer.analysis.tasks.scoring import scores
from soft_prompt_explorer.analysis.tasks.superglue import from_hub, superglue_task, superglue_tasks
from tests.support.places import REPOSITORY

SHARED = REPOSITORY.parent / "shared" / "superglue"
NAMES = ["BoolQ", "CB", "COPA", "MultiRC", "ReCoRD", "RTE", "WiC", "WSC"]

PASSAGE = "Ann flew to Rome.\n@highlight\nBen stayed in Oslo\n@highlight\nCy left"
LINES = {
    "BoolQ": [
        {"question": "is it wet", "passage": "Water -- Water is wet.", "idx": 0, "label": True},
        {"question": "is it dry", "passage": "Sand -- Sand is dry.", "idx": 1, "label": False},
    ],
    "CB": [
        {"premise": "She said it rains.", "hypothesis": "it rains", "label": "neutral", "idx": 0},
        {"premise": "He knows it rains.", "hypothesis": "it rains", "label": "entailment", "idx": 1},
    ],
    "COPA": [
        {"premise": "It rained.", "choice1": "It got wet.", "choice2": "It got dry.", "question": "effect", "label": 0, "idx": 0},
        {"premise": "She fell.", "choice1": "She ran.", "choice2": "She slipped.", "question": "cause", "label": 1, "idx": 1},
    ],
    "MultiRC": [
        {
            "idx": 0,
            "version": 1.1,
            "passage": {
                "text": "<b>Sent 1: </b>Ann ate.<br><b>Sent 2: </b>Ben slept.<br>",
                "questions": [
                    {
                        "question": "Who ate?",
                        "answers": [{"text": "Ann", "idx": 0, "label": 1}, {"text": "Ben", "idx": 1, "label": 0}],
                        "idx": 0,
                    },
                    {"question": "Who slept?", "answers": [{"text": "Ben", "idx": 2, "label": 1}], "idx": 1},
                ],
            },
        },
        {
            "idx": 1,
            "version": 1.1,
            "passage": {
                "text": "Cy ran.",
                "questions": [{"question": "Who ran?", "answers": [{"text": "Di", "idx": 3, "label": 0}], "idx": 2}],
            },
        },
    ],
    "ReCoRD": [
        {
            "source": "Daily mail",
            "passage": {
                "text": PASSAGE,
                "entities": [{"start": 12, "end": 15}, {"start": 0, "end": 2}, {"start": 29, "end": 31}, {"start": 0, "end": 2}],
            },
            "qas": [
                {
                    "query": "@placeholder was in a plane",
                    "answers": [{"start": 29, "end": 31, "text": "Ben"}, {"start": 0, "end": 2, "text": "Ann"}],
                    "idx": 0,
                },
                {"query": "@placeholder is a city", "answers": [{"start": 12, "end": 15, "text": "Rome"}], "idx": 1},
            ],
            "idx": 0,
        },
        {
            "source": "CNN",
            "passage": {"text": "The UN met.", "entities": [{"start": 4, "end": 5}]},
            "qas": [{"query": "@placeholder met", "answers": [{"start": 4, "end": 5, "text": "UN"}], "idx": 2}],
            "idx": 1,
        },
    ],
    "RTE": [
        {"premise": "Ann lives in Rome.", "hypothesis": "Ann lives in Italy.", "label": "entailment", "idx": 0},
        {"premise": "Ben was in Oslo.", "hypothesis": "Ben lives in Oslo.", "label": "not_entailment", "idx": 1},
    ],
    "WiC": [
        {"word": "bank", "sentence1": "The bank lent.", "sentence2": "A river bank.", "label": False, "start1": 4, "end1": 8, "version": 1.1},
        {"word": "run", "sentence1": "I run.", "sentence2": "He ran.", "label": True, "start1": 2, "end1": 5, "version": 1.1},
    ],
    "WSC": [
        {
            "text": "Mark told Pete many lies about himself, but he knew.",
            "target": {"span1_index": 2, "span1_text": "Pete", "span2_index": 8, "span2_text": "he"},
            "idx": 0,
            "label": True,
        },
        {
            "text": "Mark told Pete many lies about himself, but he knew.",
            "target": {"span1_index": 0, "span1_text": "Mark", "span2_index": 8, "span2_text": "he"},
            "idx": 1,
            "label": False,
        },
        {
            "text": "The bunny hid since it was afraid of Tom's dog.",
            "target": {"span1_index": 0, "span1_text": "The bunny", "span2_index": 4, "span2_text": "it"},
            "idx": 2,
            "label": True,
        },
    ],
}  # fmt: skip

# What these lines become, held out: (input, target), written out by hand.
EXAMPLES = {
    "BoolQ": [
        ("boolq passage: Water -- Water is wet. question: is it wet", " True"),
        ("boolq passage: Sand -- Sand is dry. question: is it dry", " False"),
    ],
    "CB": [
        ("cb hypothesis: it rains premise: She said it rains.", " neutral"),
        ("cb hypothesis: it rains premise: He knows it rains.", " entailment"),
    ],
    "COPA": [
        ("copa choice1: It got wet. choice2: It got dry. premise: It rained. question: effect", " choice1"),
        ("copa choice1: She ran. choice2: She slipped. premise: She fell. question: cause", " choice2"),
    ],
    "MultiRC": [
        ("multirc question: Who ate? answer: Ann paragraph: Sent 1: Ann ate. Sent 2: Ben slept. ", " True"),
        ("multirc question: Who ate? answer: Ben paragraph: Sent 1: Ann ate. Sent 2: Ben slept. ", " False"),
        ("multirc question: Who slept? answer: Ben paragraph: Sent 1: Ann ate. Sent 2: Ben slept. ", " True"),
        ("multirc question: Who ran? answer: Di paragraph: Cy ran.", " False"),
    ],
    "ReCoRD": [
        (
            "record query: @placeholder was in a plane entities: Ann, Ben, Rome passage: Ann flew to Rome. Ben stayed in Oslo. Cy left",
            " Ann",
        ),
        ("record query: @placeholder is a city entities: Ann, Ben, Rome passage: Ann flew to Rome. Ben stayed in Oslo. Cy left", " Rome"),
        ("record query: @placeholder met entities: UN passage: The UN met.", " UN"),
    ],
    "RTE": [
        ("rte sentence1: Ann lives in Rome. sentence2: Ann lives in Italy.", " entailment"),
        ("rte sentence1: Ben was in Oslo. sentence2: Ben lives in Oslo.", " not_entailment"),
    ],
    "WiC": [
        ("wic sentence1: The bank lent. sentence2: A river bank. word: bank", " False"),
        ("wic sentence1: I run. sentence2: He ran. word: run", " True"),
    ],
    "WSC": [
        ("wsc: Mark told Pete many lies about himself, but *he* knew.", " Pete"),
        ("wsc: Mark told Pete many lies about himself, but *he* knew.", " Mark"),
        ("wsc: The bunny hid since *it* was afraid of Tom's dog.", " The bunny"),
    ],
}


@pytest.fixture
def folder(tmp_path):
    """All eight tasks, the same lines as training and held-out examples, and a test file that nobody may read."""
    for name, lines in LINES.items():
        write(tmp_path / name / "train.jsonl", lines)
        write(tmp_path / name / "val.jsonl", lines)
        (tmp_path / name / "test.jsonl").write_text("no JSON")
    return tmp_path


def write(path, lines) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def split_of(table: pd.DataFrame, split: str) -> pd.DataFrame:
    return table[table["split"] == split].drop(columns="split").reset_index(drop=True)


def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return sorted(zip(table["input"], table["target"], strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_worded_as_t5_words_it(folder, name):
    task = superglue_task(folder, name)
    table = task.load()
    assert pairs(split_of(table, "held-out")) == sorted(EXAMPLES[name])
    assert task.name == f"superglue-{name.lower()}"
    assert task.template == "{input}\nAnswer:"
    assert "val.jsonl held out" in task.source
    assert list(table.columns)[:2] == ["input", "target"]


def test_every_right_answer_of_record_is_learned_from_and_all_stand_beside_a_held_out_query(folder):
    table = superglue_task(folder, "ReCoRD").load()
    assert sorted(split_of(table, "train")["target"]) == [" Ann", " Ben", " Rome", " UN"]
    assert sorted(split_of(table, "held-out")["answers"]) == [("Ann", "Ben"), ("Rome",), ("UN",)]


def test_wsc_is_learned_from_the_spans_that_the_pronoun_stands_for(folder):
    table = superglue_task(folder, "WSC").load()
    assert sorted(split_of(table, "train")["target"]) == [" Pete", " The bunny"]
    assert dict(split_of(table, "held-out")[["target", "refers"]].itertuples(index=False)) == {
        " Pete": True,
        " Mark": False,
        " The bunny": True,
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_label_is_one_of_the_tasks_and_every_prompt_has_room_for_the_input(folder, name):
    task = superglue_task(folder, name)
    if name in ("ReCoRD", "WSC"):
        assert task.labels is None
    else:
        assert all(label.startswith(" ") for label in task.labels)
        assert set(task.load()["target"]) <= set(task.labels)
    assert len(task.prompts) == 2
    assert all(prompt.count("{input}") == 1 and not prompt.endswith(" ") for prompt in task.prompts)


# For each task: what a model answered to the held-out examples above, in the order of EXAMPLES, and the scores worked out by hand.
ANSWERS = {
    "BoolQ": (["True", "True"], {"accuracy": 1 / 2}),
    # entailment: right. neutral: an empty answer, so F1 0; the empty class has F1 0 too: (1 + 0 + 0) / 3.
    "CB": (["", "entailment"], {"macro-F1": 1 / 3, "accuracy": 1 / 2}),
    "COPA": (["choice1", "choice2"], {"accuracy": 1}),
    # Options: 1 true positive, 1 missed (the empty answer), 1 taken wrongly: F1 = 2/4. Only the question "Who ran?" is without error.
    "MultiRC": (["True", "True", "", "False"], {"F1a": 1 / 2, "EM": 1 / 3}),
    # Ben is as right as Ann; "Rome Oslo" shares one word of two with one of one, F1 2/3; an empty answer.
    "ReCoRD": (["ben", "Rome Oslo", ""], {"F1": (1 + 2 / 3 + 0) / 3, "EM": 1 / 3}),
    "RTE": (["not_entailment", ""], {"accuracy": 0}),
    "WiC": (["False", "False"], {"accuracy": 1 / 2}),
    # Pete is named: True, right. Pete is not Mark: False, right. An empty answer names no bunny: False, wrong.
    "WSC": (["Pete", "pete", ""], {"accuracy": 2 / 3}),
}


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_worked_out_by_hand(folder, name):
    task = superglue_task(folder, name)
    answers, expected = ANSWERS[name]
    said = dict(zip(EXAMPLES[name], answers, strict=True))
    table = split_of(task.load(), "held-out")
    table["answer"] = [said[pair] for pair in zip(table["input"], table["target"], strict=True)]
    scored = scores(table, task.scored_by)
    assert dict(zip(scored["measure"], scored["value"], strict=True)) == pytest.approx(expected)


class TestWithoutHeldOutFile:
    def test_a_third_is_held_out_the_same_every_time_and_the_source_says_so(self, tmp_path):
        write(
            tmp_path / "BoolQ" / "train.jsonl",
            [{"question": f"is it {i}", "passage": f"It is {i}.", "label": i % 2 == 0} for i in range(90)],
        )
        task = superglue_task(tmp_path, "boolq")
        table = task.load()
        assert table["split"].value_counts().to_dict() == {"train": 60, "held-out": 30}
        pd.testing.assert_frame_equal(table, superglue_task(tmp_path, "boolq").load())
        assert "a third of train.jsonl held out" in task.source
        labels = split_of(table, "held-out")["target"].head(12)
        assert set(labels) == {" True", " False"}

    @pytest.mark.parametrize("name", NAMES)
    def test_no_passage_is_on_both_sides(self, tmp_path, name):
        write(tmp_path / name / "train.jsonl", [line for i in range(12) for line in varied(name, i)])
        table = superglue_task(tmp_path, name).load()
        sides = table.assign(passage=table["input"].str.extract(r"(No\d+no)")[0]).groupby("passage")["split"].nunique()
        assert len(sides) == 12 and (sides == 1).all()
        held_out = split_of(table, "held-out")["input"].str.extract(r"(No\d+no)")[0].nunique()
        assert held_out == 4

    def test_all_options_of_a_question_stand_together(self, tmp_path):
        write(tmp_path / "MultiRC" / "train.jsonl", [line for i in range(12) for line in varied("MultiRC", i)])
        table = superglue_task(tmp_path, "MultiRC").load()
        runs = (table["group"] != table["group"].shift()).sum()
        assert runs == table["group"].nunique() == 48

    def test_one_passage_alone_cannot_be_divided(self, tmp_path):
        write(tmp_path / "ReCoRD" / "train.jsonl", LINES["ReCoRD"][:1])
        with pytest.raises(InputError, match="too few examples to learn from some and hold out others"):
            superglue_task(tmp_path, "ReCoRD").load()


def varied(name: str, i: int) -> list[dict]:
    """Two equal lines of one task, whose passage, premise, word or text is marked with a number."""
    mark = f"No{i}no"
    text = json.dumps(LINES[name][0])
    keys = {"BoolQ": "Water -- Water is wet.", "CB": "She said it rains.", "COPA": "It rained.", "RTE": "Ann lives in Rome.", "WiC": "bank"}
    keys |= {"MultiRC": "Ben slept.<br>", "ReCoRD": "Cy left", "WSC": "but he knew."}
    line = json.loads(text.replace(keys[name], keys[name] + mark))
    return [line, line]


class TestPronouns:
    @pytest.mark.parametrize(
        ("text", "pronoun", "index", "marked"),
        [
            ("Tom saw it.", "it", 2, "Tom saw *it*."),
            ("This is his hat, said Tom.", "his", 2, "This is *his* hat, said Tom."),
            ("It is what it is.", "it", 3, "It is what *it* is."),
            ("It is what it is.", "It", 0, "*It* is what it is."),
            ("Some day they might want to use it , but really .", "it", 6, "Some day they might want to use *it* , but really ."),  # SuperGLUE's, off by one
            ('He laughed. "Good for him," he said.', "him", 4, 'He laughed. "Good for *him*," he said.'),
            ("When theyscold them", "they", 1, "When *theyscold* them"),
            ("two  spaces\nand they  left", "they", 3, "two  spaces\nand *they*  left"),
        ],
    )  # fmt: skip
    def test_the_right_one_is_marked(self, tmp_path, text, pronoun, index, marked):
        target = {"span1_index": 0, "span1_text": "Tom", "span2_index": index, "span2_text": pronoun}
        for file in ("train", "val"):
            write(tmp_path / "WSC" / f"{file}.jsonl", [{"text": text, "target": target, "label": True}])
        assert set(superglue_task(tmp_path, "WSC").load()["input"]) == {f"wsc: {marked}"}


class TestRefusals:
    @pytest.mark.parametrize(
        ("name", "line", "reason"),
        [
            ("BoolQ", b"{", "Line 2 of .*train.jsonl is no JSON"),
            ("BoolQ", b"[" * 100_000, "Line 2 of .* is no JSON"),
            ("BoolQ", b'{"question": "caf\xe9"}', "Line 2 of .* is no UTF-8 from byte 17 on; save the file as UTF-8"),
            ("BoolQ", b"[1]", "Line 2 of .* holds no JSON object"),
            ("BoolQ", b'{"question": "q", "label": true}', "holds no field 'passage'; give it the fields that SuperGLUE's own BoolQ has"),
            ("BoolQ", b'{"question": "q", "passage": 3, "label": true}', "a 'passage' that is not a text"),
            ("BoolQ", b'{"question": "q", "passage": "\\ud800", "label": true}', "half a character under 'passage'"),
            ("BoolQ", b'{"question": "q", "passage": "p"}', "no field 'label'"),
            ("BoolQ", b'{"question": "q", "passage": "p", "label": "maybe"}', "the label 'maybe', which is none of False, True"),
            ("BoolQ", b'{"question": "q", "passage": "p", "label": [true]}', "which is none of False, True"),
            ("COPA", b'{"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": 2}', "the label '2', which is none of choice1"),
            ("COPA", b'{"premise": "p", "choice1": "a", "choice2": "b", "question": "cause", "label": -1}', "the label '-1'"),
            ("RTE", b'{"premise": "p", "hypothesis": "h", "label": true}', "the label 'True', which is none of entailment"),
            ("CB", b'{"premise": "p", "hypothesis": "h", "label": null}', "the label 'None'"),
            ("MultiRC", b'{"passage": "p"}', "a 'passage' that is not an object"),
            ("MultiRC", b'{"passage": {"text": "p", "questions": [1]}}', "a 'questions' that is not a list of objects"),
            ("MultiRC", b'{"passage": {"text": "p", "questions": [{"question": "q", "answers": [{"text": "a"}]}]}}', "the label 'None'"),
            ("ReCoRD", b'{"passage": {"text": "p", "entities": [{"start": 0, "end": 9}]}, "qas": []}', "an entity from 0 to 9 of a passage of 1 char"),
            ("ReCoRD", b'{"passage": {"text": "p", "entities": [{"start": 0, "end": 0}]}, "qas": [{"query": "q", "answers": []}]}', "under 'answers'"),
            ("WSC", b'{"text": "a b", "target": {"span1_text": "a", "span2_text": "b", "span2_index": 2}, "label": true}', "word 2 of a text of 2 words"),
            ("WSC", b'{"text": "a b", "target": {"span1_text": " ", "span2_text": "b", "span2_index": 1}, "label": true}', "nothing under 'span1_text'"),
            ("WSC", b'{"text": "a b", "label": true}', "no field 'target'"),
        ],
    )  # fmt: skip
    def test_a_bad_line_is_named(self, folder, name, line, reason):
        path = folder / name / "train.jsonl"
        path.write_bytes(json.dumps(LINES[name][0]).encode() + b"\n" + line + b"\n")
        with pytest.raises(InputError, match=reason):
            superglue_task(folder, name).load()

    def test_blank_lines_are_passed_over_and_counted(self, folder):
        path = folder / "RTE" / "val.jsonl"
        path.write_bytes(b"\n\n" + json.dumps(LINES["RTE"][0]).encode() + b"\n\n{\n")
        with pytest.raises(InputError, match=r"Line 5 of .*val.jsonl"):
            superglue_task(folder, "RTE").load()

    def test_an_empty_file(self, folder):
        (folder / "RTE" / "train.jsonl").write_text("\n")
        with pytest.raises(InputError, match="holds no examples"):
            superglue_task(folder, "RTE").load()

    def test_a_file_that_is_too_large_is_not_read(self, folder, monkeypatch):
        monkeypatch.setattr(superglue, "MAX_BYTES", 100)
        with pytest.raises(InputError, match="files of up to 100 are read"):
            superglue_task(folder, "RTE")

    def test_a_name_or_folder_that_is_none(self, folder, tmp_path):
        with pytest.raises(InputError, match="No task of SuperGLUE is called 'AX-b'; name one of its folders, BoolQ, CB, COPA"):
            superglue_task(folder, "AX-b")
        with pytest.raises(InputError, match="holds none of SuperGLUE's tasks"):
            superglue_tasks(folder / "BoolQ")
        with pytest.raises(InputError, match=r"There is no .*train.jsonl"):
            superglue_task(folder / "BoolQ", "CB")
        with pytest.raises(InputError, match="cannot be read"):
            superglue_tasks(tmp_path / "nowhere")


def test_all_tasks_that_a_folder_holds_are_found_in_the_benchmarks_order(folder):
    (folder / "AX-b").mkdir()
    (folder / "RTE" / "train.jsonl").unlink()
    (folder / "CB").rename(folder / "cb")
    assert [task.name for task in superglue_tasks(folder)] == [f"superglue-{name.lower()}" for name in NAMES if name != "RTE"]


def test_a_task_is_the_same_while_its_files_are_and_travels_to_other_processes(folder):
    task = superglue_task(folder, "superglue-copa")
    assert task == superglue_task(folder, "COPA") == pickle.loads(pickle.dumps(task))
    assert hash(task) == hash(superglue_task(folder, "copa"))
    write(folder / "COPA" / "val.jsonl", LINES["COPA"][:1])
    assert task != superglue_task(folder, "COPA")


# As the hub has the same lines: labels are numbers, nested files are flat, and the spans of WSC stand beside the text.
HUB = {
    "boolq": [line | {"label": int(line["label"])} for line in LINES["BoolQ"]],
    "cb": [line | {"label": ["entailment", "contradiction", "neutral"].index(line["label"])} for line in LINES["CB"]],
    "copa": LINES["COPA"],
    "multirc": [
        {"paragraph": line["passage"]["text"], "question": question["question"], "answer": answer["text"], "label": answer["label"],
         "idx": {"paragraph": line["idx"], "question": question["idx"], "answer": answer["idx"]}}
        for line in LINES["MultiRC"] for question in line["passage"]["questions"] for answer in question["answers"]
    ],
    "record": [
        {"passage": PASSAGE, "query": "@placeholder was in a plane", "entities": ["Ann", "Ben", "Rome"], "answers": ["Ann", "Ben"]},
        {"passage": PASSAGE, "query": "@placeholder is a city", "entities": ["Ann", "Ben", "Rome"], "answers": ["Rome"]},
        {"passage": "The UN met.", "query": "@placeholder met", "entities": ["UN"], "answers": ["UN"]},
    ],
    "rte": [line | {"label": ["entailment", "not_entailment"].index(line["label"])} for line in LINES["RTE"]],
    "wic": [line | {"label": int(line["label"])} for line in LINES["WiC"]],
    "wsc.fixed": [line["target"] | {"text": line["text"], "label": int(line["label"])} for line in LINES["WSC"]],
}  # fmt: skip


class TestHub:
    @pytest.fixture
    def hub(self, monkeypatch):
        """The package datasets, but for the network: the same lines as hub rows, and the labels of the test split withheld."""
        module = ModuleType("datasets")

        def load_dataset(path: str, config: str):
            assert path == "aps/super_glue"
            rows = HUB[config]
            return {"train": rows, "validation": rows, "test": [row | {"label": -1} for row in rows]}

        module.load_dataset = load_dataset
        monkeypatch.setitem(sys.modules, "datasets", module)
        return module

    @pytest.mark.parametrize("name", NAMES)
    def test_it_has_the_same_examples_as_the_files(self, hub, folder, name):
        task, of_files = from_hub(f"superglue-{name.lower()}"), superglue_task(folder, name)
        table, expected = task.load(), of_files.load()
        pd.testing.assert_frame_equal(table.drop(columns="group", errors="ignore"), expected.drop(columns="group", errors="ignore"))
        assert (task.name, task.labels, task.scoring) == (of_files.name, of_files.labels, of_files.scoring)
        if name == "MultiRC":
            assert [len(rows) for _, rows in table.groupby("group")] == [len(rows) for _, rows in expected.groupby("group")]

    def test_without_datasets_the_ways_out_are_said(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "datasets", None)
        with pytest.raises(InputError, match=r"pip install datasets.*or name a folder that holds BoolQ/train.jsonl"):
            from_hub("boolq")

    def test_without_the_hub_too(self, hub):
        def offline(path, config):
            raise ConnectionError("Couldn't reach the Hugging Face Hub")

        hub.load_dataset = offline
        task = from_hub("rte")
        with pytest.raises(InputError, match=r"ConnectionError: Couldn't reach.*name a folder that holds RTE/train.jsonl"):
            task.load()

    def test_an_unknown_name(self):
        with pytest.raises(InputError, match="No task of SuperGLUE is called 'superglue-x'"):
            from_hub("superglue-x")


@pytest.mark.skipif(not SHARED.is_dir(), reason="the examples of SuperGLUE are not beside the repository")
class TestSharedExamples:
    def test_five_tasks_of_32_examples_have_a_third_held_out(self):
        tasks = superglue_tasks(SHARED)
        assert [task.name for task in tasks] == ["superglue-boolq", "superglue-cb", "superglue-copa", "superglue-rte", "superglue-wic"]
        for task in tasks:
            table = task.load()
            assert table["split"].value_counts().to_dict() == {"train": 22, "held-out": 10}
            assert set(table["target"]) == set(task.labels)

    def test_every_label_is_that_of_the_file(self):
        lines = [json.loads(line) for line in (SHARED / "RTE" / "train.jsonl").read_text(encoding="utf-8").splitlines()]
        expected = [(f"rte sentence1: {line['premise']} sentence2: {line['hypothesis']}", f" {line['label']}") for line in lines]
        assert pairs(superglue_task(SHARED, "RTE").load()) == sorted(expected)
