"""What the lens and the effect may say of adapters that know nothing."""

import numpy as np
from scipy import stats

from soft_prompt_explorer.analysis.behaviour.difference_lens import _null_scores, _pushed


def assert_says_little(p, p_far):
    """Of adapters drawn apart from the null adapters that they are beside at most 5 % have a word at q < 0.05, and the effect says something of at most 5 %: up to the error of so many draws.

    Parameters
    ----------
    p, p_far : (m,), of each the smallest p-value of a word, and that of its KL.
    """
    most = stats.binom.ppf(0.99, len(p), 0.05)
    told = int((p < 0.05).sum()), int((np.minimum(1, 2 * np.minimum(p, p_far)) <= 0.05).sum())
    print(f"of {len(p)}: a word stands out in {told[0]}, the effect says something of {told[1]}")
    assert max(told) <= most


def smallest_p(changes, null_changes, looked, language_model):
    """(m,) the smallest p-value of a word, of each change beside null adapters of these kinds."""
    output = language_model.model.get_output_embeddings().weight.numpy() - looked.common
    nulls = _null_scores(null_changes[:, :, -1], output, None)  # once for all of them, where `pushed` asks for them each time
    return np.array([_pushed(change, nulls, output, None).p.min() for change in changes])


def p_of_kl(kl, null_kl):
    """(m,) the p-value of each KL, of several kinds of null adapters the largest."""
    return np.array([max((1 + (null.mean(1) >= each).sum()) / (1 + len(null)) for null in null_kl) for each in kl])


def assert_uniform(p):
    """Beside null adapters of its own kind a p-value is uniform (Kolmogorov and Smirnov)."""
    found = stats.kstest(p, "uniform").pvalue
    print(f"uniform: p {found:.3f}")
    assert found > 0.001
