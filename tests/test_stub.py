"""_core.pyi says of each function of the extension what the extension says."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path

import pytest
from core_table import ENTRIES, NUMBERS, arguments_of

import dsr
from dsr import _core

STUB = Path(dsr.__file__).with_name("_core.pyi")
FUNCTIONS = {node.name: node for node in ast.parse(STUB.read_text()).body if isinstance(node, ast.FunctionDef)}
TYPES = {
    "real": "_Real",
    "float32": "_F32",
    "float64": "_F64",
    "uint32": "_U32",
    "int16": "_I16",
    "int32": "_I32",
    "int64": "_I64",
    "count": "int",
    "size": "int",
    "seed": "int",
    "neuron": "NeuronModel",
    "geometry": "Geometry",
}


def test_names():
    assert set(FUNCTIONS) == {name for name in dir(_core) if not name.startswith("_")}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments(name):
    stub = FUNCTIONS[name].args
    assert (stub.args, stub.kwonlyargs, stub.defaults, stub.vararg, stub.kwarg) == ([], [], [], None, None)
    parameters = inspect.signature(getattr(_core, name)).parameters.values()
    assert [argument.arg for argument in stub.posonlyargs] == [parameter.name for parameter in parameters]
    assert all(parameter.kind is parameter.POSITIONAL_ONLY for parameter in parameters)


@pytest.mark.parametrize("name", ENTRIES)
def test_types(name):
    """Arrays have the dtype, numbers the kind of the tests' table of the entries."""
    wanted = [
        TYPES.get(argument.kind, "float") + (" | None" if argument.optional else "") for argument in arguments_of(name)
    ]
    stub = FUNCTIONS[name]
    assert [ast.unparse(argument.annotation) for argument in stub.args.posonlyargs] == wanted
    assert ast.unparse(stub.returns) == ("float" if name in NUMBERS else "None")


def test_docstrings_name_the_results():
    """What takes no arguments says what it returns, in its stub and when called."""
    for name in ("level", "levels", "threads", "blas", "kernels"):
        returned = getattr(_core, name)()
        stated = ast.unparse(FUNCTIONS[name].returns)
        assert stated.startswith(type(returned).__name__)
