"""The training step compiled for a TPU slice that is not here.

chips (which slice) -> topology (its devices, without them) -> program (the step, compiled)
-> hlo (its collectives) -> table, command: what `ilp compile` shows
"""
