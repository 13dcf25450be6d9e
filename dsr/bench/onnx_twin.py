"""The ordinary twin of a network in onnxruntime: a program of ReLU as an ONNX model, in float32 or in int8."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from dsr.deploy import program as p
from dsr.deploy.program import Program, Step
from dsr.ops import Values

AVAILABLE = find_spec("onnx") is not None and find_spec("onnxruntime") is not None
"""Whether there is something to compare with."""


def onnx_model(program: Program) -> Any:
    """The program as an ONNX model of float32, whose input has any number of samples."""
    from onnx import TensorProto, helper

    nodes: list[Any] = []
    arrays: list[Any] = []

    def constant(name: str, values: Values) -> str:
        data = values.astype(np.float32).tobytes()
        arrays.append(helper.make_tensor(name, TensorProto.FLOAT, values.shape, data, True))
        return name

    def write(number: int, step: Step) -> None:
        given, out = [f"v{i}" for i in step.inputs], f"v{number}"
        if isinstance(step, p.Convolution):
            if step.geometry.spread != (1, 1):
                raise ValueError(f"onnx_model: layer '{step.path}': a transposed convolution has no twin here")
            g = step.geometry
            top, bottom, left, right = g.padding
            options: dict[str, Any] = {"strides": g.stride, "dilations": g.dilation, "group": g.groups}
            names = [constant(f"w{number}", step.weight)]
            names += [] if step.bias is None else [constant(f"b{number}", step.bias)]
            nodes.append(
                helper.make_node(
                    "Conv", given + names, [out], kernel_shape=g.kernel, pads=(top, left, bottom, right), **options
                )
            )
        elif isinstance(step, p.Sum):
            parts = []
            for k, (name, factor) in enumerate(zip(given, step.factors, strict=True)):
                if (factor != 1).any():
                    scaled = constant(f"f{number}_{k}", factor.reshape(1, -1, 1, 1))
                    nodes.append(helper.make_node("Mul", [name, scaled], [f"{out}_{k}"]))
                    name = f"{out}_{k}"
                parts.append(name)
            if step.bias is not None:
                parts.append(constant(f"b{number}", step.bias.reshape(1, -1, 1, 1)))
            nodes.append(helper.make_node("Sum", parts, [out]))
        elif isinstance(step, p.Pool):
            (y, x), kind = step.padding, "AveragePool" if isinstance(step, p.AveragePool) else "MaxPool"
            sizes: dict[str, Any] = {"kernel_shape": step.kernel_size, "strides": step.stride, "pads": (y, x, y, x)}
            if kind == "AveragePool":
                sizes["count_include_pad"] = 1
            nodes.append(helper.make_node(kind, given, [out], **sizes))
        elif isinstance(step, p.Rectify):
            nodes.append(helper.make_node("Relu", given, [out]))
        elif isinstance(step, p.Flatten):
            shape = f"s{number}"
            arrays.append(helper.make_tensor(shape, TensorProto.INT64, (4,), (-1, *step.shape)))
            nodes.append(helper.make_node("Reshape", [*given, shape], [out]))
        elif isinstance(step, p.Concat):
            nodes.append(helper.make_node("Concat", given, [out], axis=1))
        else:
            raise ValueError(f"onnx_model: layer '{step.path}': {type(step).__name__} has no twin here")

    for number, step in enumerate(program.steps):
        if number:
            write(number, step)
    first, last = program.steps[0], program.steps[-1]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ("batch", *step.shape))
        for name, step in (("v0", first), (f"v{len(program.steps) - 1}", last))
    ]
    graph = helper.make_graph(nodes, "twin", ends[:1], ends[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def onnx_session(program: Program, threads: int, samples: Values | None = None) -> Callable[[Values], Values]:
    """The twin as a call: of float32, or, with samples to calibrate it, of int8.

    Static quantisation as onnxruntime's documentation has it: weights by channel, activations unsigned, QDQ nodes.
    """
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    model = onnx_model(program).SerializeToString()
    shape = program.steps[0].shape
    if samples is not None:
        batches = iter([{"v0": samples.reshape(-1, *shape)}])

        class Reader(CalibrationDataReader):  # type: ignore[misc]  # the package has no types
            def get_next(self) -> Any:
                return next(batches, None)

        with TemporaryDirectory() as folder:
            plain, quantised = Path(folder) / "float32.onnx", Path(folder) / "int8.onnx"
            plain.write_bytes(model)
            quantize_static(
                plain,
                quantised,
                Reader(),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            model = quantised.read_bytes()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def call(images: Values) -> Values:
        output = np.asarray(session.run(None, {"v0": images.reshape(-1, *shape)})[0], np.float32)
        return output.reshape(len(images), *program.output_features)

    return call
