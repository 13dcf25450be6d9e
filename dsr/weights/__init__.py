"""Loads weights, also third-party ones in PyTorch files, by dsr's names or by those of the authors' code."""

from dsr.weights.loading import load_state

__all__ = ["load_state"]
