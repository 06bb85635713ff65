"""The decoder, its description and its weights."""
