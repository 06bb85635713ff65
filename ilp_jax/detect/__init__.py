"""Asking a model what it has learned."""
