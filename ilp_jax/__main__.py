"""``python -m ilp_jax COMMAND ...``."""

import sys

from ilp_jax.cli import main

if __name__ == "__main__":
    sys.exit(main())
