"""The arrows between the rooms: kernels <- levels <- ops <- python in C, and the layers of the Python package."""

from __future__ import annotations

import ast
import re
from importlib.util import resolve_name
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ["kernels", "levels", "ops", "libdsr", "fuzz", "python"]
SOURCES = sorted((ROOT / "csrc").rglob("*.[ch]"))
MODULES = sorted((ROOT / "dsr").rglob("*.py"))

# headers of the system and of others, and the rooms that may know them
FOREIGN = {
    "kernels": {"stddef.h", "stdint.h", "string.h", "math.h", "assert.h", "immintrin.h"},
    "levels": {"stddef.h", "stdint.h", "string.h", "immintrin.h", "arm_neon.h", "cpuid.h"},
    "ops": {"stddef.h", "stdint.h", "string.h", "math.h", "assert.h", "stdlib.h", "stdatomic.h", "omp.h", "pthread.h"}
    | {"cblas.h", "dlfcn.h", "link.h", "malloc.h"},
    "libdsr": {
        "stddef.h",
        "stdint.h",
        "string.h",
        "math.h",
        "limits.h",
        "stdarg.h",
        "stdio.h",
        "stdlib.h",
        "pthread.h",
    },
    "fuzz": {"string.h"},
    "python": {"Python.h", "numpy/arrayobject.h", "stddef.h", "stdint.h", "string.h", "math.h", "stdio.h", "stdlib.h"},
}
# rooms of the package, the lowest first, and the rooms that each may import from besides itself
PACKAGE = {
    "system": set(),
    "reference": set(),
    "ops": {"_core", "system"},
    "functional": {"_core", "ops"},
    "nn": {"ops", "functional"},
    "metrics": {"ops", "nn"},
    "testing": {"ops", "nn"},
    "optim": {"_core", "ops", "nn"},
    "files": {"system", "ops"},
    "data": {"system", "ops", "files"},
    "weights": {"ops", "nn", "files"},
    "models": {"nn"},
    "inspect": {"ops", "functional", "nn", "files"},
    "nir": {"ops", "nn", "files"},
    "deploy": {"ops", "nn", "files", "data", "weights"},
    "train": {"system", "ops", "nn", "metrics", "optim", "files", "data", "weights", "models", "deploy"},
    "sklearn": {"ops", "nn", "optim", "models"},
    "bench": {"_core", "system", "ops", "nn", "optim", "models", "deploy", "train"},
    "commands": {"the package itself", "_core", "system", "ops", "nn", "files", "data", "inspect", "nir", "deploy"}
    | {"train", "bench"},
}
# the faces of the package, which see it as a user does
FACES = {"dsr", "dsr.__main__"}


def without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def includes(path: Path) -> tuple[set[str], set[Path]]:
    """Names in <...>, and files in "..."."""
    found = re.findall(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', without_comments(path.read_text()), re.MULTILINE)
    return (
        {name for mark, name in found if mark == "<"},
        {(path.parent / name).resolve() for mark, name in found if mark == '"'},
    )


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "csrc").parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_includes(path):
    foreign, own = includes(path)
    room = room_of(path)
    if room == "dsr.h":
        assert (foreign, own) == ({"stddef.h", "stdint.h"}, set())
        return
    assert foreign <= FOREIGN[room], f"{room} may not know {foreign - FOREIGN[room]}"
    for other in own:
        assert other.is_file(), f"{other} does not exist"
        if room_of(other) != "dsr.h":
            allowed = ROOMS[: ROOMS.index(room) + 1]
            assert room_of(other) in allowed, f"{room} may not know {room_of(other)}"


def test_sources_fill_the_rooms():
    assert {room_of(path) for path in SOURCES} == {*ROOMS, "dsr.h"}


@pytest.mark.parametrize("path", [path for path in SOURCES if room_of(path) == "kernels"], ids=lambda path: path.name)
def test_kernels_are_pure_loops(path):
    """No Python, BLAS, threads, memory or errors."""
    text = without_comments(path.read_text())
    for word in (r"\w*alloc", "free", r"omp\w*", r"cblas\w*", r"Py\w+", r"printf|fprintf|puts", "errno|abort|exit"):
        assert not re.search(rf"\b({word})\b", text), f"{path.name} knows {word}"


def test_threads_are_started_in_ops_only():
    for path in SOURCES:
        if re.search(r"^\s*#\s*pragma\s+omp|\bomp_\w+\(", without_comments(path.read_text()), re.MULTILINE):
            assert room_of(path) == "ops", path


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    """Modules of dsr that the file imports, anywhere in it."""
    names = {module_name(other) for other in MODULES} | {"dsr._core"}
    package = module_name(path) if path.name == "__init__.py" else module_name(path).rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.split(".")[0] == "dsr"}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = resolve_name("." * node.level + base, package)
            if base.split(".")[0] == "dsr":
                inner = {f"{base}.{alias.name}" for alias in node.names} & names
                found |= inner or {base}
    return found


GRAPH = {module_name(path): imports(path) for path in MODULES}


def package_room(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("module", sorted(GRAPH.keys() - FACES))
def test_no_import_runs_back_up(module):
    room = package_room(module)
    used = {"the package itself" if name == "dsr" else package_room(name) for name in GRAPH[module]}
    assert used <= PACKAGE[room] | {room}, f"{module} may not import from {used - PACKAGE[room] - {room}}"


def test_the_rooms_are_in_order():
    """Each room imports only from rooms that come before it in the table."""
    rooms = list(PACKAGE)
    for room, known in PACKAGE.items():
        assert known - {"_core", "the package itself"} <= set(rooms[: rooms.index(room)]), room
    assert {package_room(module) for module in GRAPH.keys() - FACES} == set(rooms)


ABOUT_THE_BUILD = {"level", "levels", "vectors", "compiler", "openmp", "threads", "set_threads", "blas", "kernels"}


def test_only_the_faces_of_the_extension_run_kernels():
    """Others reach it for threads and level only, not for operations."""
    users = {module for module, known in GRAPH.items() if "dsr._core" in known}
    operations = re.compile(r"_core\.(\w+)")
    for path in MODULES:
        module = module_name(path)
        if module in users - {"dsr.functional", "dsr.optim.optimizers"} and module.split(".")[1:2] != ["ops"]:
            used = set(operations.findall(path.read_text()))
            assert used <= ABOUT_THE_BUILD, f"{module} calls {used}"


def test_oracle_is_for_tests():
    """The slow mirror is no part of the product: nothing imports it."""
    assert [module for module, known in GRAPH.items() if "dsr.reference" in known] == []


def test_run_time_dependencies():
    """NumPy and the standard library; what is optional is imported inside functions, scipy_openblas32 never.

    The room of the classifier, which is imported when it is asked for, has scikit-learn at its top.
    """
    import sys

    for path in MODULES:
        tree, package = ast.parse(path.read_text()), path.parent.name
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        anywhere = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
        for nodes, allowed in ((top, {"numpy", "dsr", *sys.stdlib_module_names}), (anywhere, None)):
            for node in nodes:
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or "dsr"]
                for name in names:
                    root = name.split(".")[0] if not getattr(node, "level", 0) else "dsr"
                    optional = {"sklearn"} if package == "sklearn" else set()
                    assert allowed is None or root in allowed | optional, f"{path.name} imports {name} at its top"
                    assert root not in ("scipy_openblas32", "torch", "tonic"), f"{path.name} imports {name}"
