"""Digest of the code and files that products depend on. Products are made again when it changes."""

import hashlib
from collections.abc import Iterable

from leaf.analysis.product import Product
from leaf.analysis.sources import code_digest
from leaf.experiment.project import PROJECT


def digest(products: Iterable[Product], *modules: str) -> str:
    """Compute the SHA-256 of products' entries, captions, input files and code.

    The code is that of ``modules``, of the products' functions, and of the modules of this package that they import,
    directly or indirectly.
    """
    products = tuple(products)
    functions = {name for one in products for name in (one.function, one.writer, *one.notes)}
    roots = {Product.__module__, *modules, *(name.partition(":")[0] for name in functions)}
    files = [PROJECT / name for one in products for name in (*one.reads, f"workflow/report/{one.caption}")]
    found = hashlib.sha256(repr(products).encode() + code_digest(*sorted(roots)).encode())
    for file in files:
        found.update(file.read_bytes() if file.exists() else b"")
    return found.hexdigest()
