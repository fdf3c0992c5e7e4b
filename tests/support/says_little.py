"""What the lens and the effect may say of adapters that know nothing."""

import numpy as np
from scipy import stats

from soft_prompt_explorer.analysis.behaviour.lens import pushed


def assert_says_little(changes, kl, looked, language_model):
    """Of 200 drawn apart from the null adapters that they are beside at most 5 % have a word at q < 0.05, and the effect says something of at most 5 %."""
    output = language_model.model.get_output_embeddings().weight.numpy() - looked.common
    p = np.array([pushed(change, looked.null_changes[:, :, -1], output).p.min() for change in changes])
    p_far = np.array([max((1 + (null.mean(1) >= each).sum()) / (1 + len(null)) for null in looked.null_kl) for each in kl])
    most = stats.binom.ppf(0.99, 200, 0.05)  # 5 %, and its error over 200 draws
    assert (p < 0.05).sum() <= most
    assert (np.minimum(1, 2 * np.minimum(p, p_far)) <= 0.05).sum() <= most
    if len(looked.null_changes) == 1:  # of two kinds the larger counts, which lies above
        assert stats.kstest(p, "uniform").pvalue > 0.001
