"""How soft prompts are trained, where runs are kept, and the ones that ship (`gallery/`)."""
