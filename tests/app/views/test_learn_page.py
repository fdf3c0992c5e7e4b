"""Learn's findings, glossary and papers through Streamlit's own test driver."""

from soft_prompt_explorer.analysis.core.folders import GALLERY
from soft_prompt_explorer.analysis.core.papers import PAPERS
from soft_prompt_explorer.app.pages import FINDINGS, GLOSSARY, SOURCES
from soft_prompt_explorer.app.parts.findings import FINDINGS as FILE
from soft_prompt_explorer.app.parts.findings import IN_SHORT
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


def test_every_part_of_the_findings_is_shown_with_its_tables():
    headings = [line[3:].strip() for line in FILE.read_text(encoding="utf-8").splitlines() if line.startswith("## ")]
    driver = driver_of("learn", tab=FINDINGS, finding="The gallery").run()
    assert not driver.exception
    pills = driver.button_group(key="linked-finding")
    assert list(pills.options) == [IN_SHORT, *headings]
    shown = {name for each in driver.dataframe for name in each.value.iloc[:, 0]}
    assert shown == {path.parent.name for path in GALLERY.glob("*/run.json")}
    assert not any("|" in element.value or "<!--" in element.value or "](#" in element.value for element in driver.markdown)
    for heading in headings:
        pills.set_value(heading).run()
        assert not driver.exception and driver.markdown, heading
        assert not any("\\" in str(cell) for each in driver.dataframe for cell in each.value.to_numpy().ravel()), heading
    pills.set_value(IN_SHORT).run()
    assert any("every prompt of the gallery beats the bare model" in element.value for element in driver.markdown)
    assert "finding" not in driver.query_params
