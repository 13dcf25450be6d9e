"""Loads the compiled part with OpenMP threads that sleep, not spin, while they wait.

libgomp reads the policy from the environment when it is loaded, and LLVM's library when it is first used: the compiled
part uses it as it is loaded. Spinning threads keep a processor from other processes: with one more busy process on two
cores a training step took 88 ms a sample spinning and 47 sleeping; 39 and 34 on a quiet machine. A policy that the user
has set is left alone, and the environment is as it was afterwards.
"""

from __future__ import annotations

import os

if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    from dsr import _core
else:
    os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        from dsr import _core
    finally:
        del os.environ["OMP_WAIT_POLICY"]

__all__ = ["_core"]
