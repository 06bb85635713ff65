"""Remedies as experiments: changed data, order and schedule, their shams, and the arms."""
