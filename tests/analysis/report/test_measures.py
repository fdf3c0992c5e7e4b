"""The records behind the page Measures and docs/measures.md."""

from soft_prompt_explorer.analysis.report.measures import GROUPS, MEASURES, measures_markdown
from tests.support.places import REPOSITORY

DOCUMENT = REPOSITORY / "docs" / "measures.md"
MADE_BY = "python -c 'from soft_prompt_explorer.analysis.report.measures import measures_markdown; print(measures_markdown(), end=\"\")' > docs/measures.md"


def test_the_document_holds_what_the_records_say():
    assert DOCUMENT.read_text(encoding="utf-8") == measures_markdown(), f"docs/measures.md is stale; make it again: {MADE_BY}"


def test_a_link_to_a_measure_leads_to_one_measure():
    anchors = [measure.anchor for measure in MEASURES]
    assert all(anchors) and len(set(anchors)) == len(anchors)


def test_the_groups_stand_in_the_order_of_the_pages():
    assert GROUPS == (
        "What an adapter does",
        "Neighbours",
        "Readings",
        "Task direction",
        "Clusters",
        "Maps",
        "Prompt against prompt",
        "LoRA spectra",
        "Behaviour",
    )


def test_every_measure_says_what_it_does_not_show_and_where_it_comes_from():
    for measure in MEASURES:
        assert len(measure.sentences) == 3 and all(sentence.endswith(".") for sentence in measure.sentences), measure.name
        assert measure.formula and measure.source.endswith(".") and measure.not_shown.endswith("."), measure.name
        assert f"### {measure.name}\n" in measures_markdown()
