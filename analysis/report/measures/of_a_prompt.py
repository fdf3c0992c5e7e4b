"""Measures of one prompt's virtual tokens: neighbours, readings and the task direction."""

from __future__ import annotations

from soft_prompt_explorer.analysis.core.papers import BENJAMINI, DAVISON, GOEMAN, HEWITT, KHASHABI, LESTER, MU, WU
from soft_prompt_explorer.analysis.prompts.metrics import METRICS
from soft_prompt_explorer.analysis.report.measures.measure import Measure

NEIGHBOURS: tuple[Measure, ...] = tuple(
    Measure("Neighbours", metric.title, metric.sentences, metric.formula, metric.source, metric.not_shown) for metric in METRICS.values()
)

READINGS: tuple[Measure, ...] = (
    Measure(
        "Readings",
        "Norm ratio",
        (
            "The length of a virtual token, counted in lengths of an ordinary word.",
            "1 is as long as the median word, and trained tokens often have left the words far behind, some by ten times.",
            "It is compared with the median length of the vocabulary's rows.",
        ),
        r"\text{norm\_ratio}_i = \frac{\lVert P_i \rVert}{\operatorname{median}_e \lVert e \rVert}",
        "The explorer's own; no paper.",
        "that a long token matters more to the model. A large learning rate alone makes tokens long, and length says nothing of direction.",
        "a token of length 6.4 beside words of median length 3.2 has a norm ratio of 2.0.",
    ),
    Measure(
        "Readings",
        "Chance: p and q",
        (
            "How often a vector that means nothing has a nearest word as near as the token's, and one that stands out as far from the words after it.",
            "A low `p_chance` says that this is rare by chance, and `q_chance` is the same after correction for the number of tokens in the prompt, with 0.05 as the limit.",
            "It is the larger of two p-values: of the best centred cosine, against 1,000 draws with the vocabulary's own mean and covariance; and of the margin over the next ten words once the common directions (the mean and the six leading principal directions) are taken off, against the same draws and 1,000 uniform directions. Where another word is nearer then, it is 1.",
        ),
        r"""\begin{gathered}
        s_i = \max_e c(P_i, e) \qquad x_b \sim \mathcal{N}(\mu, \Sigma) \qquad p^{s}_i = \frac{1 + \#\{b : \max_e c(x_b, e) \ge s_i\}}{1 + 1000} \\
        m(v) = c_{(1)}(v) - \tfrac{1}{10} \sum_{k=2}^{11} c_{(k)}(v) \qquad p_i = \max\bigl(p^{s}_i,\; p^{m}_i\bigr) \\
        q_{(i)} = \min_{j \ge i} \min\!\left(1, \tfrac{n}{j}\, p_{(j)}\right) \quad \text{for } p_{(1)} \le \dots \le p_{(n)}
        \end{gathered}""",
        f"{DAVISON}, section 4.2; {BENJAMINI}; the common directions as in {MU.brief}. c₍ₖ₎ is the k-th best cosine with the common directions taken off both.",
        "that the word was learned. A token that started as a word and hardly moved passes this test too.",
    ),
    Measure(
        "Readings",
        "Echo and drift",
        (
            "Whether a token's nearest word is still the one nearest to its initial value (`echo`), and how far the token has moved since (`drift`).",
            "An echo's nearest word tells how the prompt was started, and a drift of 0 means that the token never moved.",
            "Both are compared with the token's own initial value, and the pages also give the drift in lengths of an ordinary word.",
        ),
        r"\text{echo}_i = \bigl[\, w(P_i) = w(P^0_i) \,\bigr] \qquad \text{drift}_i = \lVert \Delta_i \rVert",
        f"The explorer's own; starting prompts from vocabulary rows is of {LESTER}.",
        "that the token learned nothing. In *plural-words-1* all ten tokens are echoes, and the prompt takes 0.24 to 0.94; nor does a long drift show that the movement was of use.",
        "a token that began at (3, 0) and is at (3, 4) has a drift of 4; where its nearest word is still the one it began with, it is an echo.",
    ),
    Measure(
        "Readings",
        "Learned direction",
        (
            "The word that a token's displacement is read as (`delta_token`), and how often a direction that means nothing stands out as far for some word (`p_learned`).",
            "A low p-value says that the token moved along a word, a high one that no word can be read from its movement.",
            "What the displacement has along its own start and along the common directions is taken off first: growth and drift that all words share are no word. The word must stand out from the next ten, further than for 1,000 directions drawn like the words and 1,000 uniform ones, of which the larger p-value counts. A token that did not move gets 1, and special tokens take no part.",
        ),
        r"""\begin{gathered}
        v_i = \Delta_i \text{ without its parts along } P^0_i,\, \mu \text{ and six leading directions of } \Sigma \\
        m_i = c_{(1)}(v_i) - \tfrac{1}{10} \sum_{k=2}^{11} c_{(k)}(v_i) \qquad
        p_{\text{learned},i} = \max\!\left(p_i^{\mathcal{N}(0, \Sigma)},\; p_i^{\text{uniform}}\right), \quad p_i^{\text{null}} = \frac{1 + \#\{b : m(u_b) \ge m_i\}}{1 + 1000}
        \end{gathered}""",
        f"The explorer's own; the p-values by {DAVISON}, section 4.2.",
        "that a token without a readable direction learned nothing. What is learned may lie in a direction that no single token shows, or that is no word.",
    ),
    Measure(
        "Readings",
        "Verdict",
        (
            "One word for a virtual token, made of chance, echo and learned direction.",
            "`moved along a word` is what training did to it, beyond chance; that it learned the word is not shown. `echo` is still at its start with nothing else to be read, `near a word` is nearer to a word than chance allows though nothing shows that it learned it, and `unreadable` is none of these.",
            "The rule was tried on draws that know nothing, 1,000 of each of some twenty kinds, drift along the mean and the leading directions, growth and collapse among them: at most 7 % may have a p-value under 0.05. Of tokens that went half the way to a word nine in ten or more are read as that word; with the start unknown, a word with noise of half its length is found in nine of ten on each of three vocabularies, and with noise of its own length in about half on the made-up ones and always on the embedded one.",
        ),
        r"""\text{verdict}_i = \begin{cases}
        \text{moved along a word} & \text{if } q_{\text{learned},i} < 0.01 \\
        \text{echo} & \text{else, if echo}_i \\
        \text{near a word} & \text{else, if } q_i < 0.05 \\
        \text{unreadable} & \text{else}
        \end{cases}""",
        f"The explorer's own, with the correction of {BENJAMINI.brief} for both q; see {KHASHABI}, on readings that mislead.",
        "what a token does in the model. An unreadable token may carry the task, and a word that a token moved along may have no part in it.",
    ),
    Measure(
        "Readings",
        "Recovered initial values",
        (
            "A guess at lost initial values: each token's nearest word stands in for what it started from.",
            "It is made only where more than half of the tokens have `q_chance` under 0.05, and refused otherwise.",
            "It is compared with nothing, as the true start is not at hand, so every verdict that rests on it is marked “recovered”.",
        ),
        r"\widehat{P}^0_i = E_{w(P_i)} \quad \text{if } \#\{i : q_i < 0.05\} > \tfrac{n}{2}",
        "The explorer's own; no paper.",
        "that the tokens started there. With recovered values every token is an echo by construction, and for one that started elsewhere the displacement is wrong as well.",
    ),
    Measure(
        "Readings",
        "Tightness of neighbours",
        (
            "How much the nearest words of one virtual token resemble each other, as the mean centred cosine of their pairs.",
            "A high value means words close together, as spellings of one word are, and near 0 they have no more in common than any words.",
            "It is compared with the ten nearest words of 1,000 random vectors, whose tightness on the embedded model is 0.45 in the median and between 0.06 and 0.80 for 95 % of them.",
        ),
        r"\text{tightness} = \frac{2}{k(k-1)} \sum_{a < b \le k} c(e_a, e_b), \qquad e_1, \dots, e_k \text{ the } k \text{ words nearest to } P_i",
        f"{LESTER}, section 7, which speaks of tight semantic clusters.",
        "that the token means what its neighbours share. The nearest words of any vector resemble each other, as all of them are near to that vector.",
    ),
)

DIRECTION: tuple[Measure, ...] = (
    Measure(
        "Task direction",
        "Concentration",
        (
            "How far the displacements of a prompt's tokens, or of several prompts' on one task, point the same way.",
            "1 means that all of them moved in one direction, and *n* directions that have nothing in common give about $1/\\sqrt{n}$.",
            "`concentration_p` compares it with 1,000 sets in which each displacement keeps its line but is turned round at random: it is exact, and says how a prompt was trained, not what it learned.",
        ),
        r"""\begin{gathered}
        D = \frac{1}{n} \sum_{i=1}^{n} \widehat{\Delta}_i \qquad \text{concentration} = \lVert D \rVert \\
        p = \frac{1 + \#\bigl\{b : \bigl\lVert \tfrac{1}{n} \sum_i \varepsilon_{bi} \widehat{\Delta}_i \bigr\rVert \ge \lVert D \rVert\bigr\}}{1 + 1000}, \quad \varepsilon_{bi} = \pm 1
        \end{gathered}""",
        f"The explorer's own; the p-value by {DAVISON}, section 4.2. Here *n* counts the tokens that moved, of all the prompts.",
        "that anything was learned: training on shuffled answers, or on random words, moves the tokens together as well. Nor that the direction does the work.",
    ),
    Measure(
        "Task direction",
        "Words test",
        (
            "Whether the task direction *D* points at the task's label or target words more than directions do that know nothing of them (`words_p`); and where these words stand in the median when the vocabulary is sorted by its cosine with *D* (`words_median_rank`).",
            "A low p-value says that the words are pointed at, and not yet that the task was learned: it may be the form of an answer.",
            "The words stay as they are and 2,000 directions are drawn, because words of a task resemble one another. They are compared with tokens of the same tenth of the ids and the same form. The largest of four p-values counts: against N(0, Σ) and uniform directions, whole and with the leading directions taken off.",
        ),
        r"""\begin{gathered}
        T(D) = \cos\bigl((\Sigma + \lambda I)^{-1} D,\; \tilde w\bigr), \quad \lambda = 4 \operatorname{tr} \Sigma / d \qquad
        \tilde w = \frac{1}{|W|} \sum_{e \in W} \bigl(e - \text{mean of tokens like } e\bigr) \\
        p = \max_{\text{null}} \frac{1 + \#\{b : T(u_b) \ge T(D)\}}{1 + 1000}
        \end{gathered}""",
        f"{GOEMAN}; {WU}; the p-value by {DAVISON}, section 4.2.",
        "that the prompt acts on these words. And of a hundred prompts that have nothing to do with some words, five point at them at 0.05.",
    ),
    Measure(
        "Task direction",
        "Beside its twin",
        (
            "What the words test says of a twin: the same prompt trained from the same start on answers dealt out anew among the examples (`twin_words_p`), and of the direction less its twins' (`beyond_twin_p`).",
            "Where a twin points at the words as well, or nothing is left beyond it, the direction names the form of an answer, which can be learned without the task. Both are asked for, because of two that point faintly one is often found and the other missed. Of 1,000 made-up pairs that share their words, on three vocabularies, one is told to point beyond the other in at most 7 %; of the 20 that ship with another twin of the same prompt none is.",
            "A twin sees the same inputs and answers and not which belongs to which, so that what both say cannot be the task.",
        ),
        r"p_{\text{beyond}} = p\bigl(D - \bar D_{\text{twins}}\bigr)",
        f"{HEWITT}, section 2.",
        "that what is left was learned from the examples: one twin is one draw of another training. A prompt that points at the words only somewhat more than its twin is missed.",
    ),
)
