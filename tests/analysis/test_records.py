"""Metrics and interventions are records, and parts of a computation tell the share of the whole."""

from dataclasses import replace
from typing import get_args

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command

from soft_prompt_explorer.analysis.__main__ import app
from soft_prompt_explorer.analysis.behaviour.changes import CONTROLS, INTERVENTIONS
from soft_prompt_explorer.analysis.core.progress import part
from soft_prompt_explorer.analysis.models.vocabulary import Vocabulary
from soft_prompt_explorer.analysis.prompts.metrics import METRICS, MetricName
from soft_prompt_explorer.analysis.prompts.search import nearest


def test_every_metric_that_can_be_named_has_its_record():
    assert tuple(METRICS) == get_args(MetricName)


def test_a_metric_is_computed_as_its_record_says_and_told_in_the_help(monkeypatch):
    """Who adds one writes a record: here the distance, less the first number of each vector."""
    euclidean = METRICS["euclidean"]

    def space(vocabulary, report):
        return replace(euclidean.space(vocabulary, report), own=lambda vectors: vectors[:, 0])

    monkeypatch.setitem(METRICS, "mine", replace(euclidean, name="mine", space=space))
    vocabulary = Vocabulary.from_embeddings(["a", "b"], np.float32([[1, 0], [4, 4]]))
    ids, scores = nearest(np.array([[1.0, 0.0]]), vocabulary, metric="mine")
    assert ids.tolist() == [[0, 1]] and scores.tolist() == [[-1.0, -6.0]]
    (option,) = (each for each in get_command(app).commands["neighbours"].params if each.name == "metric")
    assert all(f"{name}: {metric.says}" in option.help for name, metric in METRICS.items() if name != "mine")


def test_a_control_is_an_intervention_and_judged_where_what_it_controls_is():
    for name, control in CONTROLS.items():
        assert INTERVENTIONS[control].judged == INTERVENTIONS[name].judged


def test_no_two_ranked_interventions_draw_the_same_directions():
    seeds = [each.seed for each in INTERVENTIONS.values() if each.seed is not None]
    assert len(seeds) == len(set(seeds)) == 4


@settings(deadline=None)
@given(st.integers(1, 50), st.data())
def test_each_part_begins_where_the_one_before_ended_and_the_last_ends_the_whole(n, data):
    told = []
    i = data.draw(st.integers(0, n - 1))
    for share in (0.0, 1.0):
        part(lambda share, doing: told.append((share, doing)), i, n, "mine")(share, "asking")
        part(lambda share, doing: told.append((share, doing)), i + 1 - share, n)(share, "asking")
    (begun, said), (after, bare), (ended, _), (before, _) = told
    assert (said, bare) == ("mine: asking", "asking")
    assert (begun, ended) == (i / n, (i + 1) / n) and (after, before) == ((i + 1) / n, (i + 1) / n)
