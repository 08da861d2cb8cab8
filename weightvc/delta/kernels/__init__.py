"""The inner loops over a chunk's words: ``loops``, compiled from C where the package was built with a compiler.

Each call does a whole chunk without Python's lock, so that threads seldom wait for one another: NumPy takes dozens of
calls for a chunk. :mod:`weightvc.delta.kernels.portable` defines the
loops, documents them, and stands in for the compiled ones; the results are the same, so objects are the same bytes.
"""

try:
    from weightvc.delta.kernels import compiled as loops
except ImportError:
    from weightvc.delta.kernels import portable as loops  # type: ignore[no-redef]

__all__ = ["loops"]
