"""Files and vectors in, tables out: what a soft prompt is near to, and whether that can be believed.

Nothing here draws a page or trains a prompt. Start at `load_adapter`, `load_vocabulary` and `neighbours`.
"""
