"""The papers that the explorer builds on, a record each: how a source is cited, and its BibTeX."""

from __future__ import annotations

from dataclasses import dataclass

_WHERE = {"article": "journal", "inproceedings": "booktitle", "book": "publisher", "misc": "howpublished"}
OTHERS = "others"  # BibTeX's word for the authors who are not listed


@dataclass(frozen=True)
class Paper:
    """One paper.

    Attributes
    ----------
    key : of its BibTeX entry.
    authors : "Family, Given" each; `OTHERS` last where not all are listed.
    where : the journal, the proceedings, the publisher or the address.
    kind : of BibTeX's entry: article, inproceedings, book or misc.
    arxiv : its number there, where that is what one looks it up by.
    """

    key: str
    authors: tuple[str, ...]
    year: int
    title: str
    where: str
    kind: str = "inproceedings"
    arxiv: str = ""

    @property
    def brief(self) -> str:
        """Its authors and year.

        >>> HU.brief
        'Hu et al. 2022'
        >>> LESTER.brief
        'Lester, Al-Rfou and Constant 2021'
        """
        families = [author.split(",")[0] for author in self.authors]
        if len(families) > 3 or OTHERS in families:
            return f"{families[0]} et al. {self.year}"
        return f"{' and '.join(filter(None, (', '.join(families[:-1]), families[-1])))} {self.year}"

    def __str__(self) -> str:
        """As a source in Markdown.

        >>> print(HU)
        Hu et al. 2022, *LoRA: Low-Rank Adaptation of Large Language Models*
        """
        return f"{self.brief}, *{self.title}*{f', arXiv {self.arxiv}' if self.arxiv else ''}"

    @property
    def bibtex(self) -> str:
        """Its entry, for a bibliography.

        >>> print(VENNA.bibtex)
        @inproceedings{venna2001,
          author = {Venna, Jarkko and Kaski, Samuel},
          title = {{Neighborhood Preservation in Nonlinear Projection Methods: An Experimental Study}},
          booktitle = {International Conference on Artificial Neural Networks},
          year = {2001}
        }
        """
        fields = {"author": " and ".join(self.authors), "title": f"{{{self.title}}}", _WHERE[self.kind]: self.where, "year": str(self.year)}
        if self.arxiv:
            fields |= {"eprint": self.arxiv, "archivePrefix": "arXiv"}
        told = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
        return f"@{self.kind}{{{self.key},\n{told}\n}}"


BENJAMINI = Paper(
    "benjamini1995", ("Benjamini, Yoav", "Hochberg, Yosef"), 1995,
    "Controlling the False Discovery Rate: A Practical and Powerful Approach to Multiple Testing", "Journal of the Royal Statistical Society B", "article",
)  # fmt: skip
BESAG = Paper("besag1991", ("Besag, Julian", "Clifford, Peter"), 1991, "Sequential Monte Carlo p-Values", "Biometrika", "article")
BJORCK = Paper(
    "bjorck1973", ("Björck, Åke", "Golub, Gene H."), 1973, "Numerical Methods for Computing Angles Between Linear Subspaces", "Mathematics of Computation", "article",
)  # fmt: skip
BONETT = Paper(
    "bonett2012", ("Bonett, Douglas G.", "Price, Robert M."), 2012,
    "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on Paired Data", "Journal of Educational and Behavioral Statistics", "article",
)  # fmt: skip
CAMPELLO = Paper(
    "campello2013", ("Campello, Ricardo J. G. B.", "Moulavi, Davoud", "Sander, Jörg"), 2013,
    "Density-Based Clustering Based on Hierarchical Density Estimates", "Advances in Knowledge Discovery and Data Mining (PAKDD)",
)  # fmt: skip
CONNEAU = Paper(
    "conneau2018", ("Conneau, Alexis", "Lample, Guillaume", "Ranzato, Marc'Aurelio", "Denoyer, Ludovic", "Jégou, Hervé"), 2018,
    "Word Translation Without Parallel Data", "International Conference on Learning Representations",
)  # fmt: skip
DAVISON = Paper(
    "davison1997",
    ("Davison, Anthony C.", "Hinkley, David V."),
    1997,
    "Bootstrap Methods and their Application",
    "Cambridge University Press",
    "book",
)
ECKART = Paper(
    "eckart1936",
    ("Eckart, Carl", "Young, Gale"),
    1936,
    "The Approximation of One Matrix by Another of Lower Rank",
    "Psychometrika",
    "article",
)
EFRON = Paper(
    "efron1993", ("Efron, Bradley", "Tibshirani, Robert J."), 1993, "An Introduction to the Bootstrap", "Chapman and Hall", "book"
)
ELAZAR = Paper(
    "elazar2021", ("Elazar, Yanai", "Ravfogel, Shauli", "Jacovi, Alon", "Goldberg, Yoav"), 2021,
    "Amnesic Probing: Behavioral Explanation with Amnesic Counterfactuals", "Transactions of the Association for Computational Linguistics", "article",
)  # fmt: skip
GHANDEHARIOUN = Paper(
    "ghandeharioun2024", ("Ghandeharioun, Asma", "Caciularu, Avi", "Pearce, Adam", "Dixon, Lucas", "Geva, Mor"), 2024,
    "Patchscopes: A Unifying Framework for Inspecting Hidden Representations of Language Models", "International Conference on Machine Learning",
)  # fmt: skip
GOEMAN = Paper(
    "goeman2007", ("Goeman, Jelle J.", "Bühlmann, Peter"), 2007, "Analyzing Gene Expression Data in Terms of Gene Sets: Methodological Issues", "Bioinformatics", "article",
)  # fmt: skip
GROOTENDORST = Paper(
    "grootendorst2022", ("Grootendorst, Maarten",), 2022, "BERTopic: Neural Topic Modeling with a Class-Based TF-IDF Procedure", "arXiv", "misc", "2203.05794",
)  # fmt: skip
HENNIG = Paper(
    "hennig2007",
    ("Hennig, Christian",),
    2007,
    "Cluster-Wise Assessment of Cluster Stability",
    "Computational Statistics and Data Analysis",
    "article",
)
HEWITT = Paper(
    "hewitt2019", ("Hewitt, John", "Liang, Percy"), 2019, "Designing and Interpreting Probes with Control Tasks", "Empirical Methods in Natural Language Processing",
)  # fmt: skip
HINTON = Paper(
    "hinton2002",
    ("Hinton, Geoffrey E.",),
    2002,
    "Training Products of Experts by Minimizing Contrastive Divergence",
    "Neural Computation",
    "article",
)
HOLM = Paper(
    "holm1979",
    ("Holm, Sture",),
    1979,
    "A Simple Sequentially Rejective Multiple Test Procedure",
    "Scandinavian Journal of Statistics",
    "article",
)
HU = Paper(
    "hu2022",
    ("Hu, Edward J.", "Shen, Yelong", "Wallis, Phillip", "Allen-Zhu, Zeyuan", "Li, Yuanzhi", "Wang, Shean", "Wang, Lu", "Chen, Weizhu"), 2022,
    "LoRA: Low-Rank Adaptation of Large Language Models", "International Conference on Learning Representations",
)  # fmt: skip
HUTCHINSON = Paper(
    "hutchinson1990",
    ("Hutchinson, Michael F.",),
    1990,
    "A Stochastic Estimator of the Trace of the Influence Matrix for Laplacian Smoothing Splines",
    "Communications in Statistics: Simulation and Computation",
    "article",
)
KHASHABI = Paper(
    "khashabi2022", ("Khashabi, Daniel", OTHERS), 2022,
    "Prompt Waywardness: The Curious Case of Discretized Interpretation of Continuous Prompts", "North American Chapter of the Association for Computational Linguistics",
)  # fmt: skip
KORNBLITH = Paper(
    "kornblith2019", ("Kornblith, Simon", "Norouzi, Mohammad", "Lee, Honglak", "Hinton, Geoffrey"), 2019,
    "Similarity of Neural Network Representations Revisited", "International Conference on Machine Learning",
)  # fmt: skip
KROJER = Paper(
    "krojer2026", ("Krojer, Benno", OTHERS), 2026, "LatentLens: Revealing Highly Interpretable Visual Tokens in LLMs", "arXiv", "misc", "2602.00462",
)  # fmt: skip
KUHN = Paper(
    "kuhn1955",
    ("Kuhn, Harold W.",),
    1955,
    "The Hungarian Method for the Assignment Problem",
    "Naval Research Logistics Quarterly",
    "article",
)
KULLBACK = Paper(
    "kullback1951",
    ("Kullback, Solomon", "Leibler, Richard A."),
    1951,
    "On Information and Sufficiency",
    "Annals of Mathematical Statistics",
    "article",
)
LECUN = Paper(
    "lecun1989",
    ("LeCun, Yann", "Denker, John S.", "Solla, Sara A."),
    1989,
    "Optimal Brain Damage",
    "Advances in Neural Information Processing Systems",
)
LESTER = Paper(
    "lester2021", ("Lester, Brian", "Al-Rfou, Rami", "Constant, Noah"), 2021,
    "The Power of Scale for Parameter-Efficient Prompt Tuning", "Empirical Methods in Natural Language Processing",
)  # fmt: skip
LI = Paper(
    "li2021",
    ("Li, Xiang Lisa", "Liang, Percy"),
    2021,
    "Prefix-Tuning: Optimizing Continuous Prompts for Generation",
    "Association for Computational Linguistics",
)
LIU = Paper(
    "liu2021",
    ("Liu, Xiao", "Zheng, Yanan", "Du, Zhengxiao", "Ding, Ming", "Qian, Yujie", "Yang, Zhilin", "Tang, Jie"),
    2021,
    "GPT Understands, Too",
    "arXiv",
    "misc",
    "2103.10385",
)
LLOYD = Paper(
    "lloyd1982", ("Lloyd, Stuart P.",), 1982, "Least Squares Quantization in PCM", "IEEE Transactions on Information Theory", "article"
)
MAKELOV = Paper(
    "makelov2023", ("Makelov, Aleksandar", "Lange, Georg", "Nanda, Neel"), 2023,
    "Is This the Subspace You Are Looking for? An Interpretability Illusion for Subspace Activation Patching", "arXiv", "misc", "2311.17030",
)  # fmt: skip
MCINNES = Paper(
    "mcinnes2018", ("McInnes, Leland", "Healy, John", "Melville, James"), 2018,
    "UMAP: Uniform Manifold Approximation and Projection for Dimension Reduction", "arXiv", "misc", "1802.03426",
)  # fmt: skip
MINDER = Paper(
    "minder2025", ("Minder, Julian", OTHERS), 2025, "Narrow Finetuning Leaves Clearly Readable Traces in Activation Differences", "arXiv", "misc", "2510.13900",
)  # fmt: skip
MOLCHANOV = Paper(
    "molchanov2019", ("Molchanov, Pavlo", "Mallya, Arun", "Tyree, Stephen", "Frosio, Iuri", "Kautz, Jan"), 2019,
    "Importance Estimation for Neural Network Pruning", "Computer Vision and Pattern Recognition",
)  # fmt: skip
MU = Paper(
    "mu2018", ("Mu, Jiaqi", "Viswanath, Pramod"), 2018,
    "All-but-the-Top: Simple and Effective Postprocessing for Word Representations", "International Conference on Learning Representations",
)  # fmt: skip
NOSTALGEBRAIST = Paper("nostalgebraist2020", ("nostalgebraist",), 2020, "interpreting GPT: the logit lens", "LessWrong", "misc")
PEARSON = Paper(
    "pearson1901",
    ("Pearson, Karl",),
    1901,
    "On Lines and Planes of Closest Fit to Systems of Points in Space",
    "Philosophical Magazine",
    "article",
)
RAMATI = Paper(
    "ramati2024", ("Ramati, Dana", "Gottesman, Daniela", "Geva, Mor"), 2024, "Eliciting Textual Descriptions from Representations of Continuous Prompts", "arXiv", "misc",
    "2410.11660",
)  # fmt: skip
ROUSSEEUW = Paper(
    "rousseeuw1987", ("Rousseeuw, Peter J.",), 1987,
    "Silhouettes: A Graphical Aid to the Interpretation and Validation of Cluster Analysis", "Journal of Computational and Applied Mathematics", "article",
)  # fmt: skip
ROY = Paper(
    "roy2007",
    ("Roy, Olivier", "Vetterli, Martin"),
    2007,
    "The Effective Rank: A Measure of Effective Dimensionality",
    "European Signal Processing Conference",
)
RUDELSON = Paper(
    "rudelson2007", ("Rudelson, Mark", "Vershynin, Roman"), 2007,
    "Sampling from Large Matrices: An Approach through Geometric Functional Analysis", "Journal of the ACM", "article",
)  # fmt: skip
SHUTTLEWORTH = Paper(
    "shuttleworth2024", ("Shuttleworth, Reece", "Andreas, Jacob", "Torralba, Antonio", "Sharma, Pratyusha"), 2024,
    "LoRA vs Full Fine-tuning: An Illusion of Equivalence", "arXiv", "misc", "2410.21228",
)  # fmt: skip
SOKAL = Paper(
    "sokal1958", ("Sokal, Robert R.", "Michener, Charles D."), 1958,
    "A Statistical Method for Evaluating Systematic Relationships", "University of Kansas Science Bulletin", "article",
)  # fmt: skip
THEIS = Paper(
    "theis2018", ("Theis, Lucas", "Korshunova, Iryna", "Tejani, Alykhan", "Huszár, Ferenc"), 2018,
    "Faster Gaze Prediction with Dense Networks and Fisher Pruning", "arXiv", "misc", "1801.05787",
)  # fmt: skip
VASWANI = Paper(
    "vaswani2017", ("Vaswani, Ashish", OTHERS), 2017, "Attention Is All You Need", "Advances in Neural Information Processing Systems"
)
VENNA = Paper(
    "venna2001", ("Venna, Jarkko", "Kaski, Samuel"), 2001,
    "Neighborhood Preservation in Nonlinear Projection Methods: An Experimental Study", "International Conference on Artificial Neural Networks",
)  # fmt: skip
VINH = Paper(
    "vinh2010", ("Vinh, Nguyen Xuan", "Epps, Julien", "Bailey, James"), 2010,
    "Information Theoretic Measures for Clusterings Comparison: Variants, Properties, Normalization and Correction for Chance", "Journal of Machine Learning Research",
    "article",
)  # fmt: skip
VU = Paper(
    "vu2022", ("Vu, Tu", "Lester, Brian", "Constant, Noah", "Al-Rfou, Rami", "Cer, Daniel"), 2022,
    "SPoT: Better Frozen Model Adaptation through Soft Prompt Transfer", "Association for Computational Linguistics",
)  # fmt: skip
WEN = Paper(
    "wen2023",
    ("Wen, Yuxin", "Jain, Neel", "Kirchenbauer, John", "Goldblum, Micah", "Geiping, Jonas", "Goldstein, Tom"),
    2023,
    "Hard Prompts Made Easy: Gradient-Based Discrete Optimization for Prompt Tuning and Discovery",
    "Advances in Neural Information Processing Systems",
)
WESTFALL = Paper(
    "westfall1993", ("Westfall, Peter H.", "Young, S. Stanley"), 1993,
    "Resampling-Based Multiple Testing: Examples and Methods for p-Value Adjustment", "Wiley", "book",
)  # fmt: skip
WU = Paper(
    "wu2012", ("Wu, Di", "Smyth, Gordon K."), 2012, "Camera: A Competitive Gene Set Test Accounting for Inter-Gene Correlation", "Nucleic Acids Research", "article",
)  # fmt: skip
XIAO = Paper(
    "xiao2024", ("Xiao, Guangxuan", "Tian, Yuandong", "Chen, Beidi", "Han, Song", "Lewis, Mike"), 2024,
    "Efficient Streaming Language Models with Attention Sinks", "International Conference on Learning Representations",
)  # fmt: skip
ZOU = Paper(
    "zou2023", ("Zou, Andy", "Wang, Zifan", "Carlini, Nicholas", "Nasr, Milad", "Kolter, J. Zico", "Fredrikson, Matt"), 2023,
    "Universal and Transferable Adversarial Attacks on Aligned Language Models", "arXiv", "misc", "2307.15043",
)  # fmt: skip

PAPERS = tuple(
    sorted((each for each in list(vars().values()) if isinstance(each, Paper)), key=lambda paper: (paper.brief.casefold(), paper.title))
)
