"""What a prompt is asked with is its own template, or said to be unknown."""

import shutil

import pytest

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour.templates import how_asked, together
from soft_prompt_explorer.analysis.behaviour.verdict import TOO_FEW, Verdict
from soft_prompt_explorer.analysis.core.errors import InputError
from soft_prompt_explorer.trained_prompts.runs import store
from soft_prompt_explorer.trained_prompts.runs.scores import evaluate_run
from tests.support.training import trained

COLOUR = "Thing: {input}\nColour:"


def verdict(label: str) -> Verdict:
    return Verdict(
        effect=False, format_only=False, points=False, as_format=False, necessary=False, sufficient=False, words_work=False, words_act=False, readable=False,
        causal=False, p_readable=1.0, p_causal=1.0, label=label,
        sentence=f"On 3 examples of toy: nothing: {label}.",
    )  # fmt: skip


def test_a_low_score_under_an_unknown_template_is_not_held_against_the_prompt(toy_task, tmp_path):
    unknown, known = how_asked(tmp_path, "toy"), how_asked(tmp_path, "toy", COLOUR)
    assert known.said(verdict(TOO_FEW)) == verdict(TOO_FEW) and known.note("x") is None
    assert unknown.said(verdict("readable, not causal")) == verdict("readable, not causal")
    said = unknown.said(verdict(TOO_FEW))
    assert said.label == f"{TOO_FEW} when asked as ‘{{input}}⏎Answer:’, which may not be how it was trained"
    assert said.sentence == f"On 3 examples of toy: nothing: {said.label}."
    assert "a low score may be the template's doing" in unknown.note("x\x1b[1m") and unknown.note("x\x1b[1m").isprintable()


def test_prompts_of_different_templates_are_not_put_side_by_side(toy_task, tmp_path):
    first, second = how_asked(tmp_path, "toy", COLOUR), how_asked(tmp_path, "toy", "{input}:")
    assert together([first, first]) == first
    with pytest.raises(InputError, match="trained with different templates"):
        together([first, second])


def test_a_run_json_from_elsewhere_that_is_none_tells_no_template(toy_config, language_model, own_runs):
    recording = trained(toy_config, language_model)
    path = store.save(recording, "mine", evaluate_run(recording, language_model=language_model))
    assert how_asked(load_soft_prompt(path), "toy").known
    for content in ("{}", "[]", "no json", '{"config": {"task": "toy", "template": "no place"}}', '{"config": {"task": ["toy"]}}'):
        (path / "run.json").write_text(content)
        assert not how_asked(load_soft_prompt(path), "toy").known
    shutil.rmtree(path)
    assert not how_asked(path, "toy").known
