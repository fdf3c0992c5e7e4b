"""A vocabulary of made-up words and a prompt on its rows."""

import numpy as np
import pytest

from tests.support.worlds import TOKENS, WIDTH, moved, vocabulary_of_words


@pytest.fixture(scope="module")
def vocabulary():
    return vocabulary_of_words()


@pytest.fixture
def prompt(vocabulary):
    return moved(vocabulary, 0.3 * np.random.default_rng(1).standard_normal((TOKENS, WIDTH)))
