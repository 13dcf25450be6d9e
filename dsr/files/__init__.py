"""Files: written whole or not at all, read with limits, errors that name them."""
