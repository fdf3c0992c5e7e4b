"""What an adapter does, without a task: the words that it pushes the model towards, and whether it does anything."""

from __future__ import annotations

from soft_prompt_explorer.analysis.core.papers import BENJAMINI, EFRON, KROJER, KULLBACK, MINDER, WESTFALL
from soft_prompt_explorer.analysis.report.measures.measure import Measure

WHAT_IT_DOES = (
    Measure(
        "What an adapter does",
        "Difference lens",
        (
            "How far the log-probability of each word as the next one moves, to first order, on short texts that have nothing to do with a task, with the adapter less without it.",
            "A high z says that adapters of the same size that know nothing do not push the word so far; q tells chance over the whole vocabulary.",
            "Of a soft prompt those are random displacements from the same start, in any direction and in directions from word to word; of a LoRA the same singular values between random factors.",
        ),
        r"a_e = \Bigl(U_e - \sum_f \pi_f U_f\Bigr) \Delta h, \quad \Delta h = \overline{h(P)} - \overline{h(P^0)}, \quad z_e = \frac{a_e - m_e}{s_e}, \quad p_e = \frac{1 + \#\{j : \max_f z_f^{(j)} \ge z_e\}}{1 + J}, "
        r"\qquad m_e, s_e \text{ of } J = 200 \text{ null adapters, } \pi_f \text{ how likely word } f \text{ is without the adapter}",
        f"{MINDER}, of fine-tuned models; {WESTFALL}, section 2.3.",
        "that the task was learned. A twin trained on shuffled answers may be pushed towards the same words: they are the form of an answer.",
    ),
    Measure(
        "What an adapter does",
        "Effect",
        (
            "How much the distribution of the next word changes on the same texts, with the adapter from without it.",
            "The ratio says how many times as much as an adapter of the same size that knows nothing.",
            "It is told from chance by the rank of the change, or by words that no null adapter pushes so far; p counts for both ways.",
        ),
        r"\frac{\overline{\operatorname{KL}}(\text{with} \,\Vert\, \text{without})}{\operatorname{median}_j \overline{\operatorname{KL}}_j}, \qquad p = \min\bigl(1,\, 2 \min(p_{\text{far}}, p_{\text{words}})\bigr)",
        f"{KULLBACK}; the interval: {EFRON}, section 13.3.",
        "that the change is a good one, nor what the adapter does on its own task.",
    ),
    Measure(
        "What an adapter does",
        "Contextual neighbours",
        (
            "What the model makes of a virtual token inside the prompt, as the centred cosine of its state after a layer with the states of words in ordinary sentences after the same layer.",
            "A low q says that a state is nearer to a word's than those of random prompts are to any; `echo` says that the start's state has the same nearest word.",
            "The random prompts are displaced from the same start by the same lengths, 500 in any direction and 500 from word to word, of which the larger p-value counts.",
        ),
        r"s_{i\ell} = \max_{w} \cos\bigl(h_\ell(P)_i - \bar h_\ell,\; h_\ell(w) - \bar h_\ell\bigr), \qquad p_{i\ell} = \max_{\text{kind}} \frac{1 + \#\{j : s^{(j)}_{i\ell} \ge s_{i\ell}\}}{1 + 500}, "
        r"\qquad w \text{ one of 10,000 words in sentences, } \bar h_\ell \text{ their mean state}",
        f"{KROJER}, of visual tokens; {BENJAMINI.brief}, over tokens and layers.",
        "that the word was learned, nor that it does the work. And a state that is no nearer to a word than chance allows may still carry the task.",
    ),
)
