"""Measures of many virtual tokens at once: clusters, maps, and prompt against prompt."""

from __future__ import annotations

from soft_prompt_explorer.analysis.core.papers import (
    BJORCK,
    CAMPELLO,
    DAVISON,
    GROOTENDORST,
    HENNIG,
    KORNBLITH,
    KUHN,
    LLOYD,
    MCINNES,
    PEARSON,
    ROUSSEEUW,
    SOKAL,
    VENNA,
    VINH,
    VU,
)
from soft_prompt_explorer.analysis.prompts.clusters import POWER
from soft_prompt_explorer.analysis.report.measures.measure import Measure

CLUSTERS: tuple[Measure, ...] = (
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
        f"{CAMPELLO}; {SOKAL} (average linkage); {LLOYD} (k-means); "
        f"{ROUSSEEUW}. κ₅ is the distance to the fifth nearest token, itself counted (fewer where there are too few tokens); "
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
        f"{GROOTENDORST}, section 3.3; a neighbour counts as much as its centred cosine. "
        "*A* is the mean total weight of a cluster, the tokens in none, where there are any, being one more.",
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
        f"The explorer's own; the p-value by {DAVISON}, section 4.2. A set of all tokens is compared by its tightness itself. Where the start is unknown, the prompt's mean row stands for what began or moved together, "
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
        f"{HENNIG}, section 3.",
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
        f"{VINH}; here with the arithmetic mean, as in scikit-learn.",
        "agreement beyond chance. It is not corrected for chance and rises with the number of clusters, the more so for few tokens; nor does it see the tokens that were left out.",
    ),
)

MAPS: tuple[Measure, ...] = (
    Measure(
        "Maps",
        "PCA map",
        (
            "The vocabulary and the virtual tokens along the two or three directions in which the words differ most.",
            "Points far apart on the map are far apart in truth, but points close together may differ in all the other directions.",
            "Words and tokens are laid out by one linear rule that was made from the words alone, so a token can be compared with any word.",
        ),
        r"y = A^{\top} \bigl(\widehat{x - \mu} - \bar z\bigr), \qquad \bar z = \operatorname{mean}_e \widehat{e - \mu}",
        f"{PEARSON}. *A* holds the leading principal axes of the words, two or three. Of vocabularies above 60,000 words a random 60,000 are taken.",
        "most of the space. Two or three directions of hundreds carry a small part of what tells words apart, and a token without part in them stands in the middle.",
    ),
    Measure(
        "Maps",
        "UMAP map",
        (
            "The vocabulary laid out so that each word stays near the fifteen nearest to it, by cosine among the fifty leading principal components.",
            "Points close together are often neighbours in truth; how often, the trustworthiness beside the map says.",
            "A virtual token does not change the map: it stands where most of its fifteen nearest words are, and a table sets its neighbours on the map against its true ones.",
        ),
        r"""\begin{gathered}
        y_p = \frac{\sum_{j=1}^{15} v_j\, y_{e_j}}{\sum_{j=1}^{15} v_j} \qquad v_j = \exp\!\left(-\frac{\delta_j - \rho}{\sigma}\right) \\
        \delta_j = 1 - c(p, e_j) \qquad \rho = \min_j \delta_j \qquad \sigma \text{ such that } \sum_j v_j = \log_2 15
        \end{gathered}""",
        f"{MCINNES}, section 3.1 for the weights.",
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
        f"{VENNA}, as in scikit-learn. "
        "*m* is the number of points, *M*ₖ(*i*) the *k* nearest to *i* on the map, *r*(*i*, *j*) the rank of *j* among the true neighbours of *i*, from 1.",
        "true neighbours that the map has torn apart, since only intruders are counted. It is a mean as well: around one token the map may be much worse.",
    ),
)

SIMILARITY: tuple[Measure, ...] = (
    Measure(
        "Prompt against prompt",
        "Pooled cosine",
        (
            "The cosine of two prompts' mean rows.",
            "1 means that the means point the same way, and a fairly high value is usual, since vectors like a model's words share a direction and taking means brings it out.",
            "It is compared with the chance band, the middle 95 % of 200 pairs of random prompts of the same lengths.",
        ),
        r"\text{pooled\_cosine} = \cos(\bar a, \bar b), \qquad \bar a = \tfrac{1}{n_A} \sum_i a_i,\quad \bar b = \tfrac{1}{n_B} \sum_j b_j",
        f"{VU}.",
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
        f"{VU}, section 3.2.",
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
        f"The explorer's own use of the assignment problem: {KUHN}.",
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
        f"{KORNBLITH}, section 3; there rows are paired by being of the same example, here by the matching. *Ã* and *B̃* are the matched rows less their means.",
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
        f"{BJORCK}. The rows of *Q* are an orthonormal basis of a prompt's tokens, σₖ the singular values.",
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
)
