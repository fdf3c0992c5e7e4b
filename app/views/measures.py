"""Every measure that the explorer shows: its formula, how to read it, where it comes from and what it does not show."""

from __future__ import annotations

import re
from dataclasses import dataclass

import streamlit as st

from analysis.prompts.clusters import POWER

GROUPS = ("Neighbours", "Readings", "Task direction", "Clusters", "Maps", "Prompt against prompt", "LoRA spectra", "Behaviour")
ALL = "All"


@dataclass(frozen=True)
class Measure:
    """One measure.

    Attributes
    ----------
    sentences : what it measures, how to read a high or low value, what it is compared with.
    formula : LaTeX, in the symbols of `LEGEND` and those that it defines itself.
    not_shown : how the sentence "What it does not show: …" goes on.
    """

    group: str
    name: str
    sentences: tuple[str, str, str]
    formula: str
    source: str
    not_shown: str

    @property
    def anchor(self) -> str:
        """Where a link leads: `measures#centred-cosine`."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")


LEGEND = r"""
$E$ ($V \times d$): the input embeddings of the vocabulary, a row $e$ for each of its $V$ words (tokens, to be exact), $d$ numbers wide ·
$\mu$: their mean row · $\Sigma$: their covariance · $P$ ($n \times d$): a prompt of $n$ virtual tokens, a row $P_i$ or $p$ each ·
$P^0$: what $P$ was before training · $\Delta = P - P^0$: the displacements · $A, B$: two prompts, their rows $a_i, b_j$ · $c(p, e)$: centred cosine ·
$w(p)$: the word nearest to $p$ by it · $W$: a weight · $\Delta W$: what a LoRA of rank $r$ adds to it, with the singular
values $\sigma_1 \ge \dots \ge \sigma_r$ and the singular vectors $u_k, v_k$ · $\hat{x} = x / \lVert x \rVert$ · $\#$: the number of.
A cosine with a vector of length zero counts as 0.
"""

LESTER = "Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*"
KHASHABI = "Khashabi et al. 2022, *Prompt Waywardness: The Curious Case of Discretized Interpretation of Continuous Prompts*, on readings that mislead"
DAVISON = "Davison and Hinkley 1997, *Bootstrap Methods and their Application*, section 4.2"
HU = "Hu et al. 2022, *LoRA: Low-Rank Adaptation of Large Language Models*"
SPOT = "Vu et al. 2022, *SPoT: Better Frozen Model Adaptation through Soft Prompt Transfer*"

MEASURES = (
    # --- Neighbours ---
    Measure(
        "Neighbours",
        "Centred cosine",
        (
            "The angle between a virtual token and a word after the vocabulary's mean row has been taken off both.",
            "1 is the same direction, 0 a right angle and −1 the opposite direction.",
            "It is compared with the best scores of 1,000 random vectors, which on the embedded model are 0.28 in the median and above 0.53 for one in twenty.",
        ),
        r"c(p, e) = \frac{(p - \mu) \cdot (e - \mu)}{\lVert p - \mu \rVert \, \lVert e - \mu \rVert}",
        "Mu and Viswanath 2018, *All-but-the-Top: Simple and Effective Postprocessing for Word Representations*; only its removal of the mean.",
        "a meaning. Some word is always the nearest, and every random vector has one.",
    ),
    Measure(
        "Neighbours",
        "Cosine",
        (
            "The angle between a virtual token and a word as they stand, with nothing taken off.",
            "1 is the same direction, but a fairly high value is usual, since all rows of a vocabulary share a direction: on the embedded model the mean row is 2.2 long and the median row 3.2.",
            "It is best compared with the centred cosine of the same token, whose list of words differs where the shared direction decides.",
        ),
        r"\cos(p, e) = \frac{p \cdot e}{\lVert p \rVert \, \lVert e \rVert}",
        f"A textbook measure; prompts are read by it in {LESTER}.",
        "that a token and a word have anything in common but the direction that all words share.",
    ),
    Measure(
        "Neighbours",
        "CSLS",
        (
            "Twice the centred cosine, less how crowded the surroundings of the token and of the word are.",
            "Above 0 the two are closer to each other than to their ten nearest words on average, below 0 less close, and words that are near to everything lose rank.",
            "It is compared with the mean centred cosine to the ten nearest words on either side, and those of a word leave out the word itself.",
        ),
        r"""\begin{gathered}
        \operatorname{csls}(p, e) = 2\,c(p, e) - r_E(p) - r(e) \\
        r_E(p) = \tfrac{1}{10} \sum_{e' \in N_{10}(p)} c(p, e') \qquad r(e) = \tfrac{1}{10} \sum_{e' \in N_{10}(e),\, e' \neq e} c(e, e')
        \end{gathered}""",
        "Conneau et al. 2018, *Word Translation Without Parallel Data*, section 2.3; here both neighbourhoods are of words of the one vocabulary.",
        "that the best word is a real reading. It puts the words in a fairer order, and a random vector still has a first one.",
    ),
    Measure(
        "Neighbours",
        "Dot product",
        (
            "How far a word's row reaches along the virtual token, times the token's length.",
            "A high value means that the word points the token's way, that its row is long, or both.",
            "It can be compared among the words of one token only, because it grows with the token's own length.",
        ),
        r"\operatorname{dot}(p, e) = p \cdot e",
        "A textbook measure, of no one paper.",
        "that a word is close. A long row can stand before a shorter one that points more nearly the same way.",
    ),
    Measure(
        "Neighbours",
        "Euclidean distance",
        (
            "The straight distance from a virtual token to a word, with a minus sign so that higher is nearer.",
            "0 is the word itself, and a very negative value says that the token is far from that word in direction, in length or in both.",
            "It is compared with the distances of the other words, and is best read beside the norm ratio.",
        ),
        r"\operatorname{euclidean}(p, e) = -\lVert p - e \rVert",
        "A textbook measure, of no one paper.",
        "the direction of a long token. Where a token is ten times as long as the words, all of them are about as far away as it is long.",
    ),
    # --- Readings ---
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
        f"{DAVISON}; Benjamini and Hochberg 1995, *Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing*; the common directions as in Mu and Viswanath 2018. c₍ₖ₎ is the k-th best cosine with the common directions taken off both.",
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
        f"The explorer's own; the p-values by {DAVISON}.",
        "that a token without a readable direction learned nothing. What is learned may lie in a direction that no single token shows, or that is no word.",
    ),
    Measure(
        "Readings",
        "Verdict",
        (
            "One word for a virtual token, made of chance, echo and learned direction.",
            "`learned` has moved along a word, `echo` is still at its start with nothing else to be read, `near a word` is nearer to a word than chance allows though nothing shows that it learned it, and `unreadable` is none of these.",
            "The rule was tried on draws that know nothing, 1,000 of each of some twenty kinds, drift along the mean and the leading directions, growth and collapse among them: at most 7 % may have a p-value under 0.05. Of tokens that went half the way to a word nine in ten or more are read as that word; with the start unknown, a word with noise of half its length is found in nine of ten, and with noise of its own length in about half.",
        ),
        r"""\text{verdict}_i = \begin{cases}
        \text{learned} & \text{if } q_{\text{learned},i} < 0.01 \\
        \text{echo} & \text{else, if echo}_i \\
        \text{near a word} & \text{else, if } q_i < 0.05 \\
        \text{unreadable} & \text{else}
        \end{cases}""",
        f"The explorer's own, with the correction of Benjamini and Hochberg 1995 for both q; see {KHASHABI}.",
        "what a token does in the model. An unreadable token may carry the task, and a learned word may have no part in it.",
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
    # --- Task direction ---
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
        f"The explorer's own; the p-value by {DAVISON}. Here *n* counts the tokens that moved, of all the prompts.",
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
        f"Goeman and Bühlmann 2007, *Analyzing Gene Expression Data in Terms of Gene Sets*; Wu and Smyth 2012, *Camera*; the p-value by {DAVISON}.",
        "that the prompt acts on these words. And of a hundred prompts that have nothing to do with some words, five point at them at 0.05.",
    ),
    Measure(
        "Task direction",
        "Beside its twin",
        (
            "What the words test says of a twin: the same prompt trained from the same start on answers dealt out anew among the examples (`twin_words_p`), and of the direction with what it shares with its twins taken off (`beyond_twin_p`).",
            "Where a twin points at the words as well, or nothing is left beyond it, the direction names the form of an answer, which can be learned without the task. Both are asked for, because a twin's direction is measured with an error: of twins that were compared with each other, three in four pointed at the words without what they shared too.",
            "A twin sees the same inputs and answers and not which belongs to which, so that what both say cannot be the task.",
        ),
        r"p_{\text{beyond}} = p\bigl(D - B B^{\top} D\bigr), \qquad B \text{ an orthonormal basis of the twins' directions}",
        "Hewitt and Liang 2019, *Designing and Interpreting Probes with Control Tasks*, section 2.",
        "that what is left was learned from the examples: one twin is one draw of another training.",
    ),
    # --- Clusters ---
    Measure(
        "Clusters",
        "Clustering methods",
        (
            "Three ways to put virtual tokens into groups by the direction of their centred positions or of their displacements.",
            "HDBSCAN looks for dense places and leaves tokens out, while agglomerative clustering and k-means put every token somewhere, in the number of groups from 2 to 20 with the best mean silhouette.",
            "A group counts as real only when it passes both tests below, stability of 0.6 or more and `tightness_p` under 0.05, and says something only when it is no echo either. A set that lies together whole is one group, tested like any.",
        ),
        r"""\begin{gathered}
        z_i = \widehat{P_i - \mu} \;\text{ or }\; \widehat{\Delta}_i \qquad \delta(i, j) = 1 - z_i \cdot z_j \\
        \text{HDBSCAN: } \max\{\kappa_5(i), \kappa_5(j), \delta(i, j)\} \qquad
        \text{agglomerative: } \operatorname{mean}_{i \in A,\, j \in B} \delta(i, j) \\
        \text{k-means: } \min \sum_C \sum_{i \in C} \lVert z_i - \bar z_C \rVert^2 \qquad \text{silhouette: } \frac{b_i - a_i}{\max(a_i, b_i)}
        \end{gathered}""",
        "Campello, Moulavi and Sander 2013, *Density-Based Clustering Based on Hierarchical Density Estimates*; Sokal and Michener 1958, "
        "*A Statistical Method for Evaluating Systematic Relationships* (average linkage); Lloyd 1982, *Least Squares Quantization in PCM* (k-means); "
        "Rousseeuw 1987, *Silhouettes*. κ₅ is the distance to the fifth nearest token, itself counted (fewer where there are too few tokens); "
        "aᵢ and bᵢ are the mean distances to the token's own group and to the next one. Where HDBSCAN finds no two dense places, the one below the widest gap of its hierarchy is told; "
        "where the best silhouette is under 0.25 and the mean cosine of all pairs 0.5 or more, the set is one group.",
        f"that there are groups in the data. A method that is told to divide tokens divides noise as well. Nor that there are none where none is found. {POWER}",
    ),
    Measure(
        "Clusters",
        "Cluster label",
        (
            "The three words that are most frequent among the ten nearest words of a cluster's members, and rare elsewhere.",
            "A word comes first when it is near to many members here and to few tokens outside, and forms that differ by capitals or by the space before them count as one word.",
            "Each word's share in the cluster is weighed against its weight over all tokens, those in no cluster included.",
        ),
        r"""\begin{gathered}
        \text{importance}(t, C) = \frac{f_{t,C}}{\sum_{t'} f_{t',C}} \, \log\!\left(1 + \frac{A}{\sum_{C'} f_{t,C'}}\right) \\
        f_{t,C} = \sum_{i \in C}\; \sum_{e \in N_{10}(\mu + z_i),\; e \text{ a form of } t} \max\bigl(0,\, c(\mu + z_i, e)\bigr)
        \end{gathered}""",
        "Grootendorst 2022, *BERTopic: Neural Topic Modeling with a Class-Based TF-IDF Procedure*, section 3.3; a neighbour counts as much as its centred cosine. "
        "*A* is the mean total weight of a cluster, the tokens in none being one more.",
        "what the cluster is about. A cluster of random vectors gets three words as well.",
    ),
    Measure(
        "Clusters",
        "Cluster tightness",
        (
            "How alike the members of one cluster are, as the mean cosine of their pairs.",
            "1 means that all of them point the same way, and a low `tightness_p` says that the same method seldom finds a cluster as tight for its size among tokens that began and moved likewise and have nothing else in common.",
            "It is compared with 66 times three sets of the same recipe: each token starts from another word of the same tenth of the vocabulary (or from another random direction), moves as its whole prompt did, and by itself as far as it did but in a random direction, which is uniform, drawn like the words, or along one word. The largest of three p-values counts, so that none is below 0.015.",
        ),
        r"""\begin{gathered}
        \text{tightness}(C) = \frac{2}{|C|(|C| - 1)} \sum_{i < j \in C} z_i \cdot z_j \\
        t(C) = \bigl(\text{tightness}(C) - \text{tightness of all}\bigr)\,(|C| - 1)^{1/4} \qquad
        p = \max_{\text{null}} \frac{1 + \#\{b : \max_{C' \in b} t(C') \ge t(C)\}}{1 + 66} \\
        \text{null: } P^{0\prime}_i + \bar\Delta + \lVert \Delta_i - \bar\Delta \rVert\, u_i
        \end{gathered}""",
        f"The explorer's own; the p-value by {DAVISON}. A set of all tokens is compared by its tightness itself. Where the start is unknown, the prompt's mean row stands for what began or moved together, "
        "and each token lies as far from it as it does, or as words lie from theirs where that is farther. A set has as many tokens as there are, 400 at most.",
        "why the members are alike. Tokens that started from the same words are a tight cluster before any training: see the echo of the start.",
    ),
    Measure(
        "Clusters",
        "Cluster stability",
        (
            "Whether a cluster is found again when some of the tokens are left out.",
            "1 means that it always comes back whole, and below 0.6 the page calls it unstable.",
            "Each cluster is compared with its best match in 100 bootstrap resamples, on the tokens that were drawn, and a token drawn twice counts once.",
        ),
        r"\text{stability}(C) = \frac{1}{100} \sum_{b=1}^{100} \max_{C' \in b} \frac{|C_b \cap C'|}{|C_b \cup C'|}, \qquad C_b = \{i \in C : i \text{ drawn in } b\}",
        "Hennig 2007, *Cluster-Wise Assessment of Cluster Stability*, section 3.",
        "that a cluster is more than chance. Rows of the embedded model fall into heaps, such as frequent words and rare ones, and every resample finds them again.",
    ),
    Measure(
        "Clusters",
        "Echo of the start",
        (
            "Whether the tokens of a cluster lay together before any training (`echo`): the share that started from a word which another member started from too (`shared_start`), and how tight the members' starts are (`start_tightness`).",
            "A cluster is an echo from a shared start of 0.5 on, or where the starts are half as tight as the cluster or tighter. Where the starts of half the members or more are unknown, it may be one.",
            "It counts the members whose initial values are known: by the word nearest to them, and by the mean cosine of their pairs, less the words' mean among positions and less the starts' own mean among displacements, since tokens that began alike may move alike.",
        ),
        r"""\begin{gathered}
        \text{shared\_start}(C) = \frac{\#\bigl\{i \in C : w(P^0_i) = w(P^0_j) \text{ for another } j \in C\bigr\}}{\#\{i \in C : P^0_i \text{ known}\}} \\
        \text{echo: } \text{shared\_start} \ge \tfrac{1}{2} \;\text{ or }\; \text{start\_tightness}(C) \ge \tfrac{1}{2}\, \text{tightness}(C)
        \end{gathered}""",
        "The explorer's own; no paper. Prompts of one seed draw the same words, whatever their task.",
        "that a cluster which is no echo was learned: tokens also meet where training moves all prompts alike. An echo may hold something learned beside the start.",
    ),
    Measure(
        "Clusters",
        "Agreement (NMI)",
        (
            "How much the clusters tell of which prompt, or which task, a token belongs to.",
            "1 means that they are the same division and 0 that one says nothing of the other.",
            "The clusters are compared with the names of the prompts and with the tasks, over the tokens that are in a cluster.",
        ),
        r"\text{nmi} = \frac{I(C; G)}{\tfrac{1}{2}\,\bigl(H(C) + H(G)\bigr)}, \qquad I \text{ mutual information},\; H \text{ entropy},\; G \text{ prompt or task}",
        "Vinh, Epps and Bailey 2010, *Information Theoretic Measures for Clusterings Comparison*; here with the arithmetic mean, as in scikit-learn.",
        "agreement beyond chance. It is not corrected for chance and rises with the number of clusters, the more so for few tokens; nor does it see the tokens that were left out.",
    ),
    # --- Maps ---
    Measure(
        "Maps",
        "PCA map",
        (
            "The vocabulary and the virtual tokens along the two or three directions in which the words differ most.",
            "Points far apart on the map are far apart in truth, but points close together may differ in all the other directions.",
            "Words and tokens are laid out by one linear rule that was made from the words alone, so a token can be compared with any word.",
        ),
        r"y = A^{\top} \bigl(\widehat{x - \mu} - \bar z\bigr), \qquad \bar z = \operatorname{mean}_e \widehat{e - \mu}",
        "Pearson 1901, *On Lines and Planes of Closest Fit to Systems of Points in Space*. *A* holds the leading principal axes of the words, two or three. Of vocabularies above 60,000 words a random 60,000 are taken.",
        "most of the space. Two or three directions of hundreds carry a small part of what tells words apart, and a token without part in them stands in the middle.",
    ),
    Measure(
        "Maps",
        "UMAP map",
        (
            "The vocabulary laid out so that each word stays near the fifteen nearest to it, by cosine among the fifty leading principal components.",
            "Points close together are often neighbours in truth; how often, the trustworthiness beside the map says.",
            "A virtual token does not change the map: it stands at the weighted mean of its fifteen nearest words' places, and a table sets its neighbours on the map against its true ones.",
        ),
        r"""\begin{gathered}
        y_p = \frac{\sum_{j=1}^{15} v_j\, y_{e_j}}{\sum_{j=1}^{15} v_j} \qquad v_j = \exp\!\left(-\frac{\delta_j - \rho}{\sigma}\right) \\
        \delta_j = 1 - c(p, e_j) \qquad \rho = \min_j \delta_j \qquad \sigma \text{ such that } \sum_j v_j = \log_2 15
        \end{gathered}""",
        "McInnes, Healy and Melville 2018, *UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction*, section 3.1 for the weights.",
        "distances between groups far apart, the sizes of groups or their shapes, which change with the seed. A token far from every word looks as if it lay amid them, since it can stand nowhere else.",
    ),
    Measure(
        "Maps",
        "Trustworthiness",
        (
            "How far the neighbours of a point on the map are its neighbours in truth, at *k* = 15.",
            "1 means that all of them are, and a map drawn at random has about 0.5.",
            "The fifteen nearest on the map are compared with the ranks by cosine in the full space, over 3,000 of the words, and an intruder costs the more the farther off it truly is.",
        ),
        r"T(k) = 1 - \frac{2}{m k (2m - 3k - 1)} \sum_{i=1}^{m} \sum_{j \in M_k(i)} \max\bigl(0,\, r(i, j) - k\bigr)",
        "Venna and Kaski 2001, *Neighborhood Preservation in Nonlinear Projection Methods: An Experimental Study*, as in scikit-learn. "
        "*m* is the number of points, *M*ₖ(*i*) the *k* nearest to *i* on the map, *r*(*i*, *j*) the rank of *j* among the true neighbours of *i*, from 1.",
        "true neighbours that the map has torn apart, since only intruders are counted. It is a mean as well: around one token the map may be much worse.",
    ),
    # --- Prompt against prompt ---
    Measure(
        "Prompt against prompt",
        "Pooled cosine",
        (
            "The cosine of two prompts' mean rows.",
            "1 means that the means point the same way, and a fairly high value is usual, since vectors like a model's words share a direction and taking means brings it out.",
            "It is compared with the chance band, the middle 95 % of 200 pairs of random prompts of the same lengths.",
        ),
        r"\text{pooled\_cosine} = \cos(\bar a, \bar b), \qquad \bar a = \tfrac{1}{n_A} \sum_i a_i,\quad \bar b = \tfrac{1}{n_B} \sum_j b_j",
        f"{SPOT}.",
        "likeness beyond the common direction, unless it lies above the band. Prompts with quite different tokens can have the same mean.",
    ),
    Measure(
        "Prompt against prompt",
        "Mean cosine",
        (
            "The mean cosine over all pairs of a token of one prompt and a token of the other.",
            "A high value means that tokens of the two point roughly one way, but even a prompt against itself stays below 1 unless all its tokens do.",
            "It is compared with the chance band of random prompts of the same lengths, as nothing is centred and the common direction counts in every pair.",
        ),
        r"\text{mean\_cosine} = \frac{1}{n_A n_B} \sum_{i=1}^{n_A} \sum_{j=1}^{n_B} \cos(a_i, b_j)",
        f"{SPOT}, section 3.2.",
        "whether any token of one has a counterpart in the other. Ten perfect matches can be lost among ninety pairs that have nothing in common.",
    ),
    Measure(
        "Prompt against prompt",
        "Matched cosine",
        (
            "The mean cosine when each token of the shorter prompt is given a partner of its own in the other, in the best way there is.",
            "1 means that every token has an exact counterpart in direction, and the longer the other prompt is, the better matches there are by chance alone.",
            "It is compared with the chance band of random prompts of the same lengths; *z* compares it with prompts of the same recipe.",
        ),
        r"\text{matched\_cosine} = \max_{\pi} \frac{1}{m} \sum_{i=1}^{m} \cos\bigl(a_i, b_{\pi(i)}\bigr), \qquad m = n_A \le n_B,\; \pi \text{ one-to-one}",
        "The explorer's own use of the assignment problem: Kuhn 1955, *The Hungarian Method for the Assignment Problem*.",
        "that the prompts work alike. The order of tokens, which the model does see, is left out of account, and so are their lengths.",
    ),
    Measure(
        "Prompt against prompt",
        "CKA",
        (
            "Whether the matched tokens lie to each other in one prompt as their partners do in the other, whatever way the whole is turned.",
            "1 means the same arrangement up to rotation, size and shift, and 0 none in common.",
            "It has to be compared with the chance band: two matched pairs always give 1, and few tokens in a wide space give much whatever they are.",
        ),
        r"""\text{cka} = \frac{\langle K, L \rangle}{\lVert K \rVert_F \, \lVert L \rVert_F}, \qquad
        K = \tilde A \tilde A^{\top},\; L = \tilde B \tilde B^{\top}""",
        "Kornblith et al. 2019, *Similarity of Neural Network Representations Revisited*, section 3; there rows are paired by being of the same example, here by the matching. *Ã* and *B̃* are the matched rows less their means.",
        "that the two stand in the same place: a prompt and the same prompt turned into other directions score 1. One very long token can decide the value.",
    ),
    Measure(
        "Prompt against prompt",
        "Mean principal angle",
        (
            "How far the tokens of two prompts span the same subspace, as the mean cosine of its principal angles (`principal_angle_mean`).",
            "1 means that one span contains the other, and 0 that they are at right angles.",
            "It is compared with the chance band, since longer prompts fill more of the space and overlap more by chance.",
        ),
        r"\text{principal\_angle\_mean} = \frac{1}{r} \sum_{k=1}^{r} \sigma_k\bigl(Q_A Q_B^{\top}\bigr), \qquad r = \min(\operatorname{rank} A, \operatorname{rank} B)",
        "Björck and Golub 1973, *Numerical Methods for Computing Angles Between Linear Subspaces*. "
        "The rows of *Q* are an orthonormal basis of a prompt's tokens, σₖ the singular values.",
        "where in its span a prompt's tokens are, or how long: a direction in which they hardly differ counts as much as the strongest.",
    ),
    Measure(
        "Prompt against prompt",
        "z",
        (
            "How many standard deviations the matched cosine of the centred rows lies above that of prompts which began and moved likewise and have nothing else in common.",
            "One of two unrelated prompts is beyond 1.96 once in twenty times at most, on either side together; of many pairs some are, so the page asks for more of many (3.8 of 325).",
            "Each of the two gives way to 50 times three others of its recipe: other words of the same tenths of the vocabulary, or other random starts (a start that is like one of the other prompt's is kept, so that z asks beyond it), moved as far together, in a random direction but for the words' mean and six leading components, and as far one by one. The z nearest to 0 of the six counts, and 0 where they disagree on the sign; it is left out beyond 250 tokens.",
        ),
        r"z = \min_{\text{null}} \left| \frac{m(A, B) - \operatorname{mean}_r m(A, B_r)}{\operatorname{sd}_r m(A, B_r)} \right| \text{ with its sign, over both sides}, \quad m \text{ the matched } c(a_i, b_j)",
        "The explorer's own. Where a start is unknown (`against` says so), the prompt's mean row is kept, and each row lies as far from it in a random direction.",
        "that the tasks are alike. Training moves prompts of different tasks alike as well, and where the starts are unknown, a start in common may be all that there is.",
    ),
    # --- LoRA spectra ---
    Measure(
        "LoRA spectra",
        "Stable rank",
        (
            "How many directions as strong as the strongest one the update's energy would fill (`stable_rank`).",
            "1 means that one direction holds everything, and *r* that all *r* are equally strong.",
            "It is compared with the rank *r* that the LoRA was given, beyond which it cannot go.",
        ),
        r"\text{stable\_rank} = \frac{\lVert \Delta W \rVert_F^2}{\sigma_1^2} = \frac{\sum_k \sigma_k^2}{\sigma_1^2}",
        "Rudelson and Vershynin 2007, *Sampling from Large Matrices: An Approach through Geometric Functional Analysis*, where it is called numerical rank.",
        "how many ranks are needed. Many weak directions hardly count here, and the task may need them.",
    ),
    Measure(
        "LoRA spectra",
        "Effective rank",
        (
            "How many directions the update uses when each counts by its singular value (`effective_rank`).",
            "1 means one direction and *r* means *r* equal ones, and weak directions count for more than in the stable rank, since values are not squared.",
            "It is compared with the rank *r* of the LoRA; the column `entropy` is the same idea on squared values, brought to the scale from 0 to 1.",
        ),
        r"\text{effective\_rank} = \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \qquad p_k = \frac{\sigma_k}{\sum_l \sigma_l}",
        "Roy and Vetterli 2007, *The Effective Rank: A Measure of Effective Dimensionality*.",
        "what the directions do, nor that a LoRA of so many ranks would learn as much: training with fewer may find another solution, or none.",
    ),
    Measure(
        "LoRA spectra",
        "Ranks at 90, 95 and 99 %",
        (
            "The fewest directions that hold so much of the update's energy (`rank_90`, `rank_95`, `rank_99`).",
            "A number far below *r* says that the rest of the ranks change the weight very little.",
            "It is compared with the rank *r*, and the smaller copy is cut by the same rule.",
        ),
        r"\text{rank}_q = \min\Bigl\{ m : \sum_{k \le m} \sigma_k^2 \ge \tfrac{q}{100} \sum_k \sigma_k^2 \Bigr\}",
        "Eckart and Young 1936, *The Approximation of One Matrix by Another of Lower Rank*: no matrix of so low a rank comes nearer.",
        "that the model does as well with so few. Energy is not accuracy: score the smaller copy on the task.",
    ),
    Measure(
        "LoRA spectra",
        "Spike",
        (
            "The share of the update's energy that lies in its strongest direction (`spike`).",
            "1 means an update of rank one, and $1/r$ that all directions are equally strong.",
            "Above 0.9 the page's health check calls it a rank-one spike.",
        ),
        r"\text{spike} = \frac{\sigma_1^2}{\sum_k \sigma_k^2} = \frac{1}{\text{stable\_rank}}",
        "The explorer's own; no paper. It is the inverse of the stable rank.",
        "that something went wrong. A task that needs one change makes a spike too.",
    ),
    Measure(
        "LoRA spectra",
        "Subspace similarity",
        (
            "How far the *i* strongest directions of one update lie in the span of the *j* strongest of another (φ).",
            "1 means that the smaller span lies within the larger, and 0 that they are at right angles.",
            "Beside it stands φ of two random updates of the same shapes, which is more than 0 and grows with *i* and *j*.",
        ),
        r"\phi(i, j) = \frac{\lVert U_i^{\top} U'_j \rVert_F^2}{\min(i, j)}, \qquad U_i = (u_1, \dots, u_i) \text{ on the output side, } (v_1, \dots, v_i) \text{ on the input side}",
        f"{HU}, section 7.2.",
        "that both learned the same. Input directions start from random values and hardly leave them, so two LoRAs of one seed share them whatever they learned.",
    ),
    Measure(
        "LoRA spectra",
        "Amplification",
        (
            "How strong the update is beside what the weight itself does in the update's directions (`amplification`).",
            "A high value says that the LoRA makes much of what the weight has little of, and a value near 1 that it only adds to what is there.",
            "It is compared with the weight, projected on the update's own directions; `relative_norm` compares it with the whole weight instead.",
        ),
        r"\text{amplification} = \frac{\lVert \Delta W \rVert_F}{\lVert U^{\top} W V \rVert_F}, \qquad U, V \text{ the singular vectors of } \Delta W \text{ in use}",
        f"{HU}, section 7.3.",
        "that the directions matter to the task. Any direction that the weight hardly uses, a random one as well, gives a high value.",
    ),
    Measure(
        "LoRA spectra",
        "Intruder dimensions",
        (
            "How many of the ten strongest output directions of the changed weight are like none of the weight's own (`intruders`).",
            "0 means that the strongest directions are still the old ones, and 10 that all of them are new.",
            "A direction is an intruder if its cosine with every left singular vector of *W* is under 0.5.",
        ),
        r"\text{intruders} = \#\Bigl\{ k \le 10 : \max_j \bigl\lvert \tilde u_k \cdot u^W_j \bigr\rvert < 0.5 \Bigr\}, \qquad \tilde u_k \text{ of } W + \Delta W,\; u^W_j \text{ of } W",
        "Shuttleworth et al. 2024, *LoRA vs Full Fine-tuning: An Illusion of Equivalence*.",
        "that the model forgot anything: the paper finds both together, and this counts directions alone. The ten and the 0.5 are choices, and others give other counts.",
    ),
    # --- Behaviour ---
    Measure(
        "Behaviour",
        "Change under an intervention",
        (
            "How much the score, or the loss, on held-out examples changes when the prompt is changed in one way.",
            "0 is the whole prompt, and an interval that holds 0 says that no change was shown on so many examples.",
            "The same examples are asked with and without the change, and resampled together (2,000 times; over the draws too, where the change is drawn at random), with two made-up examples of which each only one gets right.",
        ),
        r"s(P') - s(P), \qquad \text{2.5 and 97.5 \% quantiles of } s_b(P') - s_b(P),\; b \text{ a resample of the examples}",
        "Efron and Tibshirani 1993, *An Introduction to the Bootstrap*, section 8.3; the made-up examples as in Bonett and Price 2012, *Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired Data*.",
        "what the token or direction means, nor that nothing happens where no change was shown: the loss may tell of one that no answer shows.",
    ),
    Measure(
        "Behaviour",
        "Task direction out, and alone",
        (
            "Whether the model acts on the direction that the displacements share: it is taken out of each of them, or kept alone over the initial values.",
            "If the score falls without it, it is needed; if it rises with it alone above no prompt, it is enough.",
            "Where the interval says so, the effect is ranked among those of up to 199 other directions in which each token moves as far (`rank_p`): of the prompt's own displacements, of other tasks' prompts, drawn like words and of no preference. No more are asked once ten did as much.",
        ),
        r"""\begin{gathered}
        P - (\Delta \hat D)\, \hat D^{\top}, \quad P^0 + (\Delta \hat D)\, \hat D^{\top} \qquad \text{beside} \qquad P - (\Delta \hat D)\, \hat r_b^{\top}, \quad P^0 + (\Delta \hat D)\, \hat r_b^{\top} \\
        p = \frac{1 + \#\{b : \text{effect}_b \ge \text{effect}\}}{1 + 199}, \quad \text{or } 10 / b \text{ where the tenth is the } b\text{-th}
        \end{gathered}""",
        f"Elazar et al. 2021, *Amnesic Probing*; Makelov et al. 2023, *Is This the Subspace You Are Looking for?*; Besag and Clifford 1991, *Sequential Monte Carlo p-Values*. {KHASHABI}.",
        "that the words which it points at are why: see the words' part. Nor that it is the only direction that acts.",
    ),
    Measure(
        "Behaviour",
        "The words' part of the direction",
        (
            "Whether the words that a direction points at are why it acts: of the direction only the part that these words span is put in, or taken out.",
            "Words are called causal where that part alone does it, or its removal undoes it, more than other directions of the same size.",
            "The rest of the direction, without the words' part, stands beside it: where the rest does as much, the words are not why.",
        ),
        r"P^0 + (\Delta \hat D)\, (B B^{\top} \hat D)^{\top}, \qquad B \text{ a basis of the words' mean and of their leading directions around it, 16 at most}",
        "The explorer's own; see Elazar et al. 2021, *Amnesic Probing*.",
        "that the words play no part anywhere: they may act through other layers than the input's.",
    ),
    Measure(
        "Behaviour",
        "Correction for many claims",
        (
            "Several claims are made about a prompt, and a gallery holds many prompts, so some hold by chance.",
            "Within a prompt the p-values of its causal claims are corrected by Holm's method, and over the gallery the smallest of each prompt by Benjamini and Hochberg's (`q_causal`, `q_readable`).",
            "A verdict that holds for a prompt by itself and not after the correction over all is marked so in the table of the gallery.",
        ),
        r"p'_{(i)} = \max_{j \le i} \min\bigl(1, (m - j + 1)\, p_{(j)}\bigr) \quad \text{for } p_{(1)} \le \dots \le p_{(m)}",
        "Holm 1979, *A Simple Sequentially Rejective Multiple Test Procedure*; Benjamini and Hochberg 1995.",
        "which of the claims that remain are the chance ones: one in twenty of them may be.",
    ),
    Measure(
        "Behaviour",
        "Nearest words in place of the tokens",
        (
            "How the prompt scores that can be written down: each virtual token replaced by its nearest word.",
            "As high as the whole prompt means that these words do what the vectors do.",
            "It is compared with no prompt at all.",
        ),
        r"s\bigl(w(P_1), \dots, w(P_n)\bigr) - s(\text{no prompt})",
        f"{KHASHABI}, section 3.",
        "that the words explain the prompt. Words that do well may do so for other reasons than people would give.",
    ),
    Measure(
        "Behaviour",
        "Logit lens",
        (
            "The word that the model would say next at a virtual position if it ended after a layer.",
            "A high probability says that the state there is close to what the model makes of that word at its end.",
            "After the last layer it is what the model really says.",
        ),
        r"\operatorname{softmax}\bigl(U\, \text{norm}(h_\ell)\bigr), \qquad h_\ell \text{ the residual stream after layer } \ell,\; U \text{ the output embeddings}",
        "nostalgebraist 2020, *interpreting GPT: the logit lens*.",
        "what early layers hold: they are not made to be read by the output layer.",
    ),
    Measure(
        "Behaviour",
        "Attention of the answer",
        (
            "How much the position that predicts the answer attends to each virtual token, on average over held-out examples.",
            "The weights of one head sum to 1 over the prompt and the input.",
            "It is compared with the share that the input gets.",
        ),
        r"\frac{1}{N} \sum_{x} \operatorname{softmax}\bigl(q_{\text{last}} K^{\top} / \sqrt{d_h}\bigr)_i",
        "Vaswani et al. 2017, *Attention Is All You Need*; Xiao et al. 2024, *Efficient Streaming Language Models with Attention Sinks*.",
        "that the token matters. The first position draws attention whatever stands there.",
    ),
    Measure(
        "Behaviour",
        "Verbalisation",
        (
            "Whether the model can say what the prompt asks for: its hidden states stand in the place of words of another text, and what is written is compared with the task's description.",
            "The share of all tasks' descriptions that gain as much against what is written of the initial values as the own one is the p-value.",
            "The descriptions of other tasks are chance.",
        ),
        r"p = \frac{\#\{t : g(t) \ge g(\text{own})\}}{\#\{t\}}, \qquad g(t) = \overline{\text{ROUGE-1}}_P(t) - \overline{\text{ROUGE-1}}_{P^0}(t), \text{ means over all pairs of layers}",
        "Ghandeharioun et al. 2024, *Patchscopes*, section 3; Ramati et al. 2024, *Eliciting Textual Descriptions from Representations of Continuous Prompts* (InSPEcT).",
        "that a prompt which is not verbalised holds nothing: the model may be too small to say it. And with ten tasks, p cannot be below 0.1.",
    ),
)


def draw(measure: Measure) -> None:
    with st.container(border=True):
        st.subheader(measure.name, anchor=measure.anchor)
        st.markdown(" ".join(measure.sentences))
        st.latex(measure.formula)
        st.markdown(f"**What it does not show:** {measure.not_shown}")
        st.caption(f"Source: {measure.source}")


st.title("Measures")
st.markdown("Each figure that the explorer shows, with its formula, the paper that it comes from, and what it does not show.")
with st.container(border=True):
    st.markdown(f"**Symbols.** {LEGEND}")
picked = st.segmented_control("Show", (ALL, *GROUPS), default=ALL, required=True, key="group", bind="query-params")
for group in GROUPS:
    if picked in (ALL, group):
        st.header(group)
        for measure in MEASURES:
            if measure.group == group:
                draw(measure)
