"""Digest of the code and files that products depend on. If it changes, the products are made again."""

import hashlib
from collections.abc import Iterable

from leaf.analysis.product import Product
from leaf.analysis.sources import code_digest
from leaf.experiment.project import PROJECT


def digest(products: Iterable[Product], *modules: str) -> str:
    """The SHA-256 of products' entries, of their captions and the files that they read, and of their code.

    The code is that of every module of this package which their functions, and ``modules``, reach by import.
    """
    products = tuple(products)
    functions = {name for one in products for name in (one.function, one.writer, *one.notes)}
    roots = {Product.__module__, *modules, *(name.partition(":")[0] for name in functions)}
    files = [PROJECT / name for one in products for name in (*one.reads, f"workflow/report/{one.caption}")]
    found = hashlib.sha256(repr(products).encode() + code_digest(*sorted(roots)).encode())
    for file in files:
        found.update(file.read_bytes() if file.exists() else b"")
    return found.hexdigest()
