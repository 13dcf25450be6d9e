"""What a trained network does: activity and errors of its spiking layers, operations, and errors against T and alpha.

>>> report = inspect.measure(network, images, labels)
>>> print(report.text())
"""

from dsr.inspect.energy import Cost
from dsr.inspect.measurement import error_curves, measure
from dsr.inspect.plan import Plan, PlanRow, plan
from dsr.inspect.report import CurvePoint, NeuronLayer, Report

__all__ = ["Cost", "CurvePoint", "NeuronLayer", "Plan", "PlanRow", "Report", "error_curves", "measure", "plan"]
