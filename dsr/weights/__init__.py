"""Third-party weights, including PyTorch files, by dsr's names or the authors'."""

from dsr.weights.loading import load_state

__all__ = ["load_state"]
