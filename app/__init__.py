"""The browser dashboard. It draws what `analysis` and `trained_prompts` compute, and computes nothing itself."""
