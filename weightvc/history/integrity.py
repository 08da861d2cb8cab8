"""Whether all of history is what its ids stand for, as far as it says which files of wvc there ever were."""

from collections.abc import Sequence

from weightvc.history import contents, process
from weightvc.history.git import GitDir

_AT_ONCE = 4096
"""Commits looked at by one git process."""


def check(
    git: GitDir,
    directories: Sequence[str],
    *,
    reflogs: bool = False,
    also: Sequence[str] = (),
    trees: Sequence[str] = (),
) -> None:
    """Compare every commit, and its trees on the way to some directories and of these, with their ids.

    git walks history by what it reads, whether that is the object that it wanted or another one. So a damaged commit
    can hide all before it, and a damaged tree the files of wvc.

    Args:
        git: The repository.
        directories: Paths of directories in the work tree.
        reflogs: Also what reflogs name, and stashes.
        also: Further commits.
        trees: Further trees.

    Raises:
        Corrupt: one is damaged.
        GitFailed: git cannot walk history.
    """
    refs = process.line(git.work_tree, "for-each-ref", "--format=%(objecttype) %(objectname)").splitlines()
    named = [name for kind, name in map(str.split, refs) if kind != "blob"]
    walk = ["rev-list", "--all", *(["--reflog"] if reflogs else []), "--stdin"]
    asked = "".join(f"{commit}\n" for commit in also).encode()
    commits = process.run(git.work_tree, *walk, stdin=asked, strict=True).decode().split()
    objects = git.common_dir / "objects"
    roots = list(dict.fromkeys((*named, *commits, *trees)))
    for start in range(0, len(roots), _AT_ONCE):
        some = roots[start : start + _AT_ONCE]
        below = [f"{root}:{path}" for root in some for path in ("", *directories)]
        known = {found[0] for found in contents.sizes(git.work_tree, below) if found is not None}
        for _ in contents.checked(git.work_tree, objects, [*some, *sorted(known)]):
            pass
