"""What the lesson says of the prompt that it is on holds of that prompt, by its own tables."""

from soft_prompt_explorer.analysis.adapters import load_soft_prompt
from soft_prompt_explorer.analysis.behaviour import kept_lens, kept_translation
from soft_prompt_explorer.analysis.behaviour.translation import what_it_does
from soft_prompt_explorer.analysis.prompts.verdicts import start_and_now
from soft_prompt_explorer.app.parts.lesson import HERO, LENS_WORDS
from soft_prompt_explorer.trained_prompts.experiments import kept_behaviour
from soft_prompt_explorer.trained_prompts.runs import store
from tests.support.driving import driver_of


def test_its_claims_hold(embedded_vocabulary):

    prompt = load_soft_prompt(store.adapter_path(HERO))
    run = store.list_runs().set_index("name").loc[HERO]
    assert run["low"] > run["no_prompt"] and run["low"] > run["start"]  # it works
    assert start_and_now(prompt, embedded_vocabulary)["echo"].all()  # its words are an echo
    told, texts, rows = kept_lens.kept_with(prompt), kept_translation.kept_with(prompt), kept_behaviour.kept(HERO)
    assert told is not None and (told.last.head(LENS_WORDS)["q"] < 0.05).all()
    assert texts is not None and what_it_does(texts) is not None
    scores = rows.drop_duplicates("intervention").set_index("intervention")["score"]
    assert scores["task direction alone"] > 0.8 * scores["whole prompt"]  # alone it does most of the work
    assert scores["random direction alone"] < 0.2 * scores["whole prompt"]
    assert scores["task direction out"] > 0.9 * scores["whole prompt"]  # without it the rest does as much


def test_every_step_is_on_the_first_page_and_each_has_its_link():
    start = driver_of("start").run()
    assert not start.exception
    bold = [each.value for each in start.markdown]
    for number, title in enumerate(
        (
            "It works",
            "What its vectors are near to",
            "The echo",
            "What it pushes towards",
            "The text that does it",
            "A direction taken out",
        ),
        start=1,
    ):
        assert f"**{number}. {title}**" in bold
        step = driver_of("learn", step=str(number)).run()
        assert not step.exception
        assert f"{number}. {title}" in [each.value for each in step.subheader]
