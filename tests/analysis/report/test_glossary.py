"""The words of the field, the papers, and the documents that are made from them."""

import re

from soft_prompt_explorer.analysis.core.papers import PAPERS
from soft_prompt_explorer.analysis.report.glossary import TERMS, glossary_markdown
from soft_prompt_explorer.analysis.report.measures import MEASURES
from tests.support.places import REPOSITORY


def test_the_document_holds_these_words():
    assert (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8") == glossary_markdown(), (
        "docs/glossary.md is stale; run python -m docs.make"
    )


def test_each_word_stands_once_and_its_measure_exists():
    assert len({term.word.casefold() for term in TERMS}) == len(TERMS)
    assert {term.measure for term in TERMS if term.measure} <= {measure.name for measure in MEASURES}


def test_each_paper_is_cited_somewhere_and_told_apart():
    cited = " ".join([*(measure.source for measure in MEASURES), *(str(term.paper) for term in TERMS)])
    assert [paper.brief for paper in PAPERS if paper.brief not in cited] == []
    assert len({paper.key for paper in PAPERS}) == len({paper.brief for paper in PAPERS}) == len(PAPERS)


def test_every_source_with_a_year_is_a_paper_of_the_list():
    """A year that follows a name belongs to a paper's record: none is cited from memory."""
    known = [paper.brief for paper in PAPERS]
    for measure in MEASURES:
        left = measure.source
        for brief in known:
            left = left.replace(brief, "")
        assert not re.search(r"\b(18|19|20)\d\d\b", re.sub(r"arXiv \d{4}\.\d+", "", left)), measure.name


def test_a_bibtex_entry_closes_its_braces_and_names_what_it_must():
    for paper in PAPERS:
        entry = paper.bibtex
        assert entry.count("{") == entry.count("}")
        assert f"year = {{{paper.year}}}" in entry and all(author in entry for author in paper.authors)
