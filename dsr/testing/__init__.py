"""Checks for layers of your own; no test framework is needed.

>>> from dsr.testing import check_layer
>>> print(check_layer(dsr.Sequential(dsr.Conv2d(3, 8, 3), dsr.BatchNorm(8), dsr.IF(1.0)), images))
"""

from dsr.testing.layers import LayerReport, check_layer

__all__ = ["LayerReport", "check_layer"]
