"""A second store for a while: what is built from it, or put into it, leaves the repository's own alone."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from weightvc.objects.manifest import Manifest
from weightvc.repo.repository import Handle
from weightvc.store.local import LocalStore
from weightvc.util import scratch


@contextmanager
def twin(repo: Handle) -> Iterator[Handle]:
    """Give a handle on an empty scratch store, gone after the block."""
    with scratch.inside(repo.tmp) as root:
        yield Handle(repo.git, LocalStore(root / "objects", root / "tmp"))


def adopt(made: Handle, repo: Handle, manifests: Iterable[Manifest]) -> None:
    """Link the objects of ``manifests`` from a repository's store into a scratch store.

    Raises:
        Missing: an object is absent.
    """
    for oid in sorted({oid for manifest in manifests for oid in manifest.objects()}):
        if made.store.size(oid) is None:
            made.store.adopt(repo.store, oid)


def keep(made: Handle, repo: Handle, manifest: Manifest) -> None:
    """Put a manifest's objects from a scratch store into a repository's, durable."""
    for oid in sorted(manifest.objects()):
        repo.store.put([made.store.open(oid)])
    repo.store.sync()
