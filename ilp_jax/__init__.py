"""Why fine-tuning leaves examples unlearned: exact per-example statistics, and their causes."""

__version__ = "0.1.0"
