"""Bringing objects that are lost here back from the remotes of this clone."""

from collections.abc import Collection

from weightvc.objects.ids import ObjectId
from weightvc.repo import reach, remotes
from weightvc.repo.repository import Handle
from weightvc.repo.transfer import WORKERS, Transfer, needed
from weightvc.util.errors import RemoteError, RequestError
from weightvc.util.progress import Progress


def refetch(
    repo: Handle, wanted: Collection[ObjectId], *, dry_run: bool, jobs: int, progress: Progress
) -> tuple[dict[ObjectId, str], list[str]]:
    """Fetch objects from whichever remote has them.

    Args:
        repo: The repository.
        wanted: The objects; only those that some manifest refers to are asked for.
        dry_run: Ask, and fetch nothing.
        jobs: Number of threads.
        progress: Told of bytes fetched.

    Returns:
        Where each came from, and what was wrong with remotes.
    """
    found: dict[ObjectId, str] = {}
    wrong: list[str] = []
    known = remotes.listing(repo) if wanted else ()
    most = needed(reach.manifests(repo).manifests) if known else {}
    for remote in known:
        left = {oid: most[oid] for oid in wanted if oid in most and oid not in found}
        try:
            transfer = Transfer(remotes.connect(repo, remote), repo.store, f"remote {remote.name}", sending=False)
            have = transfer.source.sizes(left.keys())
            if not dry_run:
                with progress.stage(f"Fetching from {remote.name}", sum(have.values())):
                    transfer.run(have, left, max(jobs, WORKERS), progress)
        except (RemoteError, RequestError) as error:
            wrong.append(f"remote {remote.name}: {error.what.removeprefix(f'remote {remote.name}: ')}")
        else:
            found |= dict.fromkeys(have, remote.url)
    return found, wrong
