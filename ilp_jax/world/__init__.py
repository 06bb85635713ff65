"""A knowledge world with planted causes: facts, the corpus of its base model, its rows."""
