"""References to a user's own code: ``"mynet.py:build"`` or ``"package.module:build"``.

Resolving one runs the code that it names. Only what a user starts on a recipe or run that they name resolves
references; whoever reads nothing but weights never does.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Callable, Mapping
from importlib.util import module_from_spec, spec_from_file_location
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from dsr.ops.arguments import shown


def is_reference(text: str) -> bool:
    """Whether this is a reference, not a name: it has a colon and a name behind it."""
    place, colon, name = text.rpartition(":")
    return bool(colon and place) and name.isidentifier()


def absolute(text: str, folder: str | Path | None = None) -> str:
    """A reference whose file is given by its absolute path, from `folder` or else the working directory."""
    place, _, name = text.rpartition(":")
    if not is_reference(text) or not place.endswith(".py"):
        return text
    return f"{Path(folder or '.', Path(place).expanduser()).absolute()}:{name}"


def resolve(text: str, what: str) -> Callable[..., Any]:
    """The function or class that a reference names; this runs the code of its module.

    The folder of a file, or for a module the working directory, is appended to ``sys.path``, so that the code may
    import what lies beside it.

    Parameters
    ----------
    text : str
        The reference.
    what : str
        What it is for, with which errors begin, such as ``recipe: key 'model'``.

    Raises
    ------
    ValueError
        This is no reference, or there is no such function in the module.
    FileNotFoundError, ImportError
        The file or the module is not there.
    Exception
        Whatever the code itself raises.
    """
    place, _, name = text.rpartition(":")
    module = _loaded(text, what)
    found: Any = getattr(module, name, None)
    if not callable(found):
        there = "is not a function" if hasattr(module, name) else "is not in it"
        raise ValueError(f"{what}: expected a function of this name in {place}, but '{name}' {there}")
    return found


def note(text: str, what: str) -> dict[str, Any]:
    """What a run keeps of a reference: where its code was found, and the SHA-256 of the file; it is resolved.

    A copy of the file would not do: it may import others beside it, and code that comes with a run folder from
    somebody else would be run without having been looked at. The checksum tells when the file is another one.
    """
    place = text.rpartition(":")[0]
    path = getattr(_loaded(text, what), "__file__", None)
    known: dict[str, Any] = {"reference": text}
    if path is not None and Path(path).is_file():
        file = Path(path).absolute()
        depth = 0 if place.endswith(".py") else place.count(".")
        root = file.parents[depth + (file.name == "__init__.py")]
        known |= {"file": str(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "root": str(root)}
    return known


def recall(noted: Mapping[str, Any]) -> str:
    """Have the module of a reference found where it was when `note` wrote of it.

    Returns
    -------
    str
        A sentence if its file is gone or another one than then; else empty.
    """
    if "file" not in noted:
        return ""
    _append(Path(noted["root"]))
    file = Path(noted["file"])
    if not file.is_file():
        return f"{noted['reference']} was in {file}, which is not there any more"
    same = hashlib.sha256(file.read_bytes()).hexdigest() == noted["sha256"]
    return "" if same else f"{file} has changed since the run used it"


def name_of(function: object) -> str:
    """What messages call a function, or an object that can be called."""
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def call(function: Callable[..., Any], what: str, arguments: tuple[Any, ...], options: Mapping[str, Any]) -> Any:
    """Call a user's function; arguments that it does not take are a ValueError that says which it takes."""
    try:
        signature(function).bind(*arguments, **options)
    except TypeError as error:
        given = ", ".join([f"{len(arguments)} arguments", *options])
        raise ValueError(
            f"{what}: {name_of(function)}{signature(function)} cannot be called with {given} ({error})"
        ) from None
    except ValueError:  # of compiled functions, which have no signature
        pass
    return function(*arguments, **options)


def _loaded(text: str, what: str) -> ModuleType:
    """The module of a reference."""
    if not is_reference(text):
        raise ValueError(f"{what}: expected FILE.py:NAME or MODULE:NAME, got {shown(text)}")
    place = text.rpartition(":")[0]
    return _file(Path(place), text, what) if place.endswith(".py") else _module(place, what)


def _file(path: Path, text: str, what: str) -> ModuleType:
    path = path.expanduser().absolute()
    if not path.is_file():
        raise FileNotFoundError(f"{what}: the file {path} is not there, which has '{text.rpartition(':')[2]}'")
    content = path.read_bytes()
    name = f"{path.stem}_{hashlib.sha256(str(path).encode() + content).hexdigest()[:16]}"
    if name in sys.modules:  # two references into one file run it once
        return sys.modules[name]
    _append(path.parent)
    spec = spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # pickles and dataclasses look for it there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _module(place: str, what: str) -> ModuleType:
    _append(Path().absolute())
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{place}.".startswith(f"{error.name}."):
            raise  # the module is there, but not what it imports
        raise ModuleNotFoundError(
            f"{what}: the module {place} is neither installed nor in {Path().absolute()}"
        ) from None


def _append(folder: Path) -> None:
    """Behind all others, so that nothing that is installed is hidden by it."""
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
