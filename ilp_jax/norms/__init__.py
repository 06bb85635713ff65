"""Exact per-example gradient norms from one backward pass."""
