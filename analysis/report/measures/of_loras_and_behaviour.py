"""Measures of LoRA updates, and of what the model makes of a prompt."""

from __future__ import annotations

from soft_prompt_explorer.analysis.core.papers import (
    BENJAMINI,
    BESAG,
    BONETT,
    ECKART,
    EFRON,
    ELAZAR,
    GHANDEHARIOUN,
    HINTON,
    HOLM,
    HU,
    HUTCHINSON,
    KHASHABI,
    LECUN,
    MAKELOV,
    MOLCHANOV,
    NOSTALGEBRAIST,
    RAMATI,
    ROY,
    RUDELSON,
    SHUTTLEWORTH,
    THEIS,
    VASWANI,
    XIAO,
    ZOU,
)
from soft_prompt_explorer.analysis.report.measures.measure import Measure

SPECTRA: tuple[Measure, ...] = (
    Measure(
        "LoRA spectra",
        "Stable rank",
        (
            "How many directions as strong as the strongest one the update's energy would fill (`stable_rank`).",
            "1 means that one direction holds everything, and *r* that all *r* are equally strong.",
            "It is compared with the rank *r* that the LoRA was given, beyond which it cannot go.",
        ),
        r"\text{stable\_rank} = \frac{\lVert \Delta W \rVert_F^2}{\sigma_1^2} = \frac{\sum_k \sigma_k^2}{\sigma_1^2}",
        f"{RUDELSON}, where it is called numerical rank.",
        "how many ranks are needed. Many weak directions hardly count here, and the task may need them.",
        "singular values 3, 1 and 1 have energy 9 + 1 + 1 = 11, so the stable rank is 11 / 9 = 1.22.",
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
        f"{ROY}.",
        "what the directions do, nor that a LoRA of so many ranks would learn as much: training with fewer may find another solution, or none.",
        "singular values 3, 1 and 1 have shares 0.6, 0.2 and 0.2, so the effective rank is exp(0.950) = 2.59.",
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
        f"{ECKART}: no matrix of so low a rank comes nearer.",
        "that the model does as well with so few. Energy is not accuracy: score the smaller copy on the task.",
        "singular values 3, 1 and 1 hold 82 %, 91 % and 100 % of the energy, so 90 % takes 2 ranks, and 95 % and 99 % take 3.",
    ),
    Measure(
        "LoRA spectra",
        "Effect of a direction",
        (
            "About how far an example's loss rises, in nats, without one singular direction of one module (`effect`): half the mean square of the gradients of each example's loss by a factor before that direction.",
            "0 means that the loss does not depend on it; the shares of all directions add up to 1.",
            "It is compared with the energy of the same direction, and taken on training examples, so that a score on held-out ones is not of what chose it.",
        ),
        r"\text{effect}_i = \frac{1}{2n} \sum_{x} \Bigl( \frac{\partial \ell_x}{\partial e_i} \Bigr)^2, \qquad \Delta W = \sum_i e_i \sigma_i u_i v_i^\top, \; e = 1",
        f"{LECUN}, with the empirical Fisher information in the place of the curvature ({THEIS.brief}; {MOLCHANOV.brief}).",
        "what becomes of the loss when many directions go at once: it is a second order at one point, each direction by itself. Score the copy.",
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
        "singular values 3, 1 and 1 have energy 9 + 1 + 1 = 11, so the spike is 9 / 11 = 0.82.",
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
        "Near copies and shared starts",
        (
            "How alike the spaces are that the A, and likewise the B, of two LoRAs span, in four of their modules, estimated from 256 numbers a LoRA and side.",
            "1 means the same space and 0 no more in common than chance: 0.5 or more in A and in B is called a near copy, in A alone a shared start.",
            "It is compared with unrelated spaces, whose estimate lies within about 1/16 of 0.",
        ),
        r"\begin{gathered} s_i = g_i^{\top} \Bigl(P_A - \tfrac{k}{n}\Bigr) h_i, \quad P_A = A^{\top} (A A^{\top})^{+} A, \quad g_i, h_i \in \{\pm 1\}^n \\ "
        r"\text{alike}(A, A') = \frac{s \cdot s'}{\lVert s \rVert \lVert s' \rVert} \approx \frac{\sum \cos^2 \theta - k k'/n}{\sqrt{(k - k^2/n)(k' - k'^2/n)}} \end{gathered}",
        f"{HUTCHINSON}, of a product of two projectors.",
        "why they are alike: a shared start is the same seed, or the same adapter trained on. How strong each direction is does not count, and only four modules are looked at.",
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
        f"{SHUTTLEWORTH}.",
        "that the model forgot anything: the paper finds both together, and this counts directions alone. The ten and the 0.5 are choices, and others give other counts.",
    ),
)

BEHAVIOUR: tuple[Measure, ...] = (
    Measure(
        "Behaviour",
        "Change under an intervention",
        (
            "How much the score, or the loss, on held-out examples changes when the prompt is changed in one way.",
            "0 is the whole prompt, and an interval that holds 0 says that no change was shown on so many examples.",
            "The same examples are asked with and without the change, and resampled together (2,000 times; over the draws too, where the change is drawn at random), with two made-up examples of which each only one gets right.",
        ),
        r"s(P') - s(P), \qquad \text{2.5 and 97.5 \% quantiles of } s_b(P') - s_b(P),\; b \text{ a resample of the examples}",
        f"{EFRON}, section 8.3; the made-up examples as in {BONETT}.",
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
        f"{ELAZAR}; {MAKELOV}; {BESAG}. {KHASHABI}, on readings that mislead.",
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
        f"The explorer's own; see {ELAZAR}.",
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
        f"{HOLM}; {BENJAMINI.brief}.",
        "which of the claims that remain are the chance ones: one in twenty of them may be.",
        "of three p-values 0.01, 0.02 and 0.04, Holm makes 0.03, 0.04 and 0.04, and Benjamini and Hochberg make 0.03, 0.03 and 0.04.",
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
        f"{KHASHABI}, on readings that mislead, section 3.",
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
        f"{NOSTALGEBRAIST}.",
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
        f"{VASWANI}; {XIAO}.",
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
        f"{GHANDEHARIOUN}, section 3; {RAMATI} (InSPEcT).",
        "that a prompt which is not verbalised holds nothing: the model may be too small to say it. And with ten tasks, p cannot be below 0.1.",
    ),
    Measure(
        "Behaviour",
        "Fidelity of a text",
        (
            "How much of what an adapter changes in the model's answers a text in its place changes too (`share`).",
            "1 means that the text does what the adapter does, 0 that it does no more than nothing, and below 0 it leads away.",
            "Beside it stand as many examples of each other task, the same examples with shuffled answers and random words; a text says what the adapter does only where it recovers half, half of the answers are the same, and its whole interval (inputs resampled 2,000 times) lies above those of all of these.",
        ),
        r"""\begin{gathered}
        \text{share}(t) = 1 - \frac{\sum_x K_t(x)}{\sum_x K_\varnothing(x)}, \qquad K_t(x) = \sum_{i} \text{KL}\bigl(p(\cdot \mid x, a_{<i}) \,\Vert\, q_t(\cdot \mid x, a_{<i})\bigr) \\
        a = a(x) \text{ the adapter's greedy answer}, \quad p \text{ with the adapter}, \quad q_t \text{ with } t \text{ before } x, \quad q_\varnothing \text{ with nothing}; \qquad \text{mixture: } q \propto \textstyle\prod_t q_t^{w_t},\; w \ge 0
        \end{gathered}""",
        f"The explorer's own; {EFRON.brief}, section 13.3, for the interval, {HINTON}, for the mixture, {ZOU}, for the search.",
        "that the adapter works as the text does: it tells of answers to such inputs alone, and what follows an answer's end is left out.",
    ),
)
