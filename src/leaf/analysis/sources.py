"""Source files of the modules that a module of this package imports, directly or indirectly, and their digest."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.abc import InspectLoader
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from pkgutil import iter_modules
from types import CodeType

PACKAGE = __name__.partition(".")[0]


@cache
def code_digest(*modules: str) -> str:
    """Compute the SHA-256 of the files in ``sources(modules)``."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(sources(modules)))).hexdigest()


def sources(modules: Iterable[str]) -> set[Path]:
    """Find the source files of modules, and of the modules of this package that they import, directly or indirectly."""
    found: dict[str, Path] = {}
    left = set(modules)
    while left:
        spec = _spec(module := left.pop())
        if module not in found and spec and spec.origin:
            found[module] = Path(spec.origin)
            left |= _imports(module)
    return set(found.values())


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Find a module without importing its package, unlike ``importlib.util.find_spec``; ``None`` if it is missing."""
    package = module.rpartition(".")[0]
    if not package:
        return find_spec(module)
    places = _places(package)
    return PathFinder.find_spec(module, places) if places else None


def _places(package: str) -> list[str]:
    """Search locations of a package's modules; empty if it is not a package."""
    spec = _spec(package)
    return spec.submodule_search_locations or [] if spec else []


@cache
def _modules(package: str) -> set[str]:
    return {module.name for module in iter_modules(_places(package))}


@cache
def _imports(module: str) -> set[str]:
    """Find the modules of this package that a module imports anywhere in its code, and its parent package.

    Strings of the form ``"module:function"`` count as imports.
    """
    spec = _spec(module)
    code = spec.loader.get_code(module) if spec and isinstance(spec.loader, InspectLoader) else None
    names = {name.partition(":")[0] for name in (_names(code) if code else ())}
    ours = {name for name in names if name.split(".")[0] == PACKAGE and name.replace(".", "_").isidentifier()}
    # In "from package import name" the name may be a module.
    ours |= {f"{package}.{name}" for package in ours for name in _modules(package) & names}
    ours.add(module.rpartition(".")[0] or PACKAGE)
    return {name for name in ours if _spec(name)}


def _names(code: CodeType) -> Iterator[str]:
    """Yield the names in compiled code, including imported modules, and the strings that may name a function."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)
        elif isinstance(constant, str) and ":" in constant:
            yield constant
