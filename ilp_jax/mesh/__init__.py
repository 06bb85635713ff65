LAUNCHED = "ILP_LAUNCHED"
"""Environment variable that a launcher sets which starts the run on every host."""
