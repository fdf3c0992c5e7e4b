"""Learn's glossary and papers through Streamlit's own test driver."""

from soft_prompt_explorer.analysis.core.papers import PAPERS
from soft_prompt_explorer.app.pages import GLOSSARY, SOURCES
from tests.support.driving import driver_of


def test_a_word_is_found_and_leads_to_its_measure():
    driver = driver_of("learn", tab=GLOSSARY, word="twin").run()
    assert not driver.exception
    said = [element.value for element in driver.markdown]
    assert any(text.startswith("**Twin.**") for text in said)
    assert not any(text.startswith("**Zero-shot.**") for text in said)
    driver.text_input(key="word").set_value("no such word").run()
    assert "Clear the field" in driver.info[0].value


def test_every_paper_can_be_copied():
    driver = driver_of("learn", tab=SOURCES).run()
    assert not driver.exception
    assert [expander.label for expander in driver.expander] == [str(paper) for paper in PAPERS]
    assert [code.value for code in driver.code] == [paper.bibtex for paper in PAPERS]
