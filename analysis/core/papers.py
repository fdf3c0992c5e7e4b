"""Papers that several records cite."""

LESTER = "Lester, Al-Rfou and Constant 2021, *The Power of Scale for Parameter-Efficient Prompt Tuning*"
KHASHABI = "Khashabi et al. 2022, *Prompt Waywardness: The Curious Case of Discretized Interpretation of Continuous Prompts*, on readings that mislead"
DAVISON = "Davison and Hinkley 1997, *Bootstrap Methods and their Application*, section 4.2"
HU = "Hu et al. 2022, *LoRA: Low-Rank Adaptation of Large Language Models*"
SPOT = "Vu et al. 2022, *SPoT: Better Frozen Model Adaptation through Soft Prompt Transfer*"
