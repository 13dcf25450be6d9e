"""Metrics as TensorBoard events, where TensorBoard is installed (``pip install dsr[tensorboard]``)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def available() -> bool:
    """Whether TensorBoard is installed."""
    return find_spec("tensorboard") is not None


class Scalars:
    """Writes the metrics of epochs into one file of events.

    Parameters
    ----------
    folder : path
        Where ``tensorboard --logdir`` looks.

    Raises
    ------
    ImportError
        TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        if not available():
            raise ImportError("Scalars: TensorBoard is not installed; pip install dsr[tensorboard]")
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    def write(self, metrics: Mapping[str, Any]) -> None:
        """Numbers, and mappings of numbers by layer; ``epoch`` is their step."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = []
        for key, value in metrics.items():
            numbers = {f"{key}/{layer}": v for layer, v in value.items()} if isinstance(value, dict) else {key: value}
            numbers = {tag: number for tag, number in numbers.items() if tag != "epoch" and not isinstance(number, str)}
            values += [
                Summary.Value(tag=tag, simple_value=number)
                for tag, number in numbers.items()
                if tag != "epoch" and not isinstance(number, str)
            ]
        self._writer.add_event(Event(wall_time=time.time(), step=metrics["epoch"], summary=Summary(value=values)))
        self._writer.flush()
