"""Examples, their tokens, the order they are visited in, and the arrays that a step takes.

Nothing here imports JAX: every function returns numpy arrays or plain records, and every
choice (rows, distractors, order) is a function of the seed and of names, never of state.
"""
