"""Bringing the user's index and work tree up to a commit that wvc has made.

Between the moving of the ref and the end of this, the user's index still has the old state, and a plain
``git commit`` would undo ours. So the paths are noted durably before the ref moves, and the next wvc command takes
up a note that it finds. The caller of everything here except :func:`recover` holds the lock of :func:`refs_locked`.
"""

import shlex
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from weightvc.history import locks, process
from weightvc.history.contents import object_id
from weightvc.history.git import GitDir
from weightvc.history.operation import under_way
from weightvc.history.process import GitFailed
from weightvc.util import canon, fields, fsio
from weightvc.util.errors import BadInput, Conflict, Corrupt, NotFound, WeightvcError
from weightvc.util.reading import read_file
from weightvc.util.text import listed, printable

INDEX_PATIENCE = 2.0
"""Seconds for which a commit waits for another git process to let go of the index."""


@dataclass(frozen=True)
class _Note:
    """What a commit has yet to do: the start of the machine that it ran after, its id and the changed paths."""

    boot: str
    commit: str
    paths: set[str]


@dataclass(frozen=True)
class Stale:
    """Paths whose entries in the index, and paths whose files, a commit has left behind ``HEAD``."""

    index: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.index or self.files)


@contextmanager
def refs_locked(git: GitDir, *, wait: bool = True) -> Iterator[None]:
    """Hold this repository's lock for moving refs; the kernel frees it if the process dies.

    What a commit that a power cut interrupted left locked in git is freed.

    Raises:
        Conflict: ``wait`` is false, and another command holds it.
    """
    _prepare(git)
    with fsio.locked(git.common_dir / "wvc" / "refs.lock", shared=False, wait=wait):
        with suppress(Corrupt):  # a note that says nothing is no reason to remove anything
            if (left := _noted(git)) is not None:
                locks.drop_stale(git, _note(git), left.boot)
        yield


def _prepare(git: GitDir) -> None:
    fsio.check_plain(scratch(git))
    for directory in (git.common_dir / "wvc", git.git_dir / "wvc"):
        fsio.check_plain(directory)
        fsio.make_dirs(directory)


def scratch(git: GitDir) -> Path:
    """Return the directory that only the holder of the lock uses: private index, git's lock on it, the note."""
    return git.git_dir / "wvc" / "commit"


def target(git: GitDir, path: str) -> Path:
    """Return where a tracked path is in the work tree.

    Raises:
        BadInput: it is not a plain path below ``.wvc/``.
        Conflict: a directory on the way is a symbolic link or a file, or the path itself is a directory.
    """
    parts = path.split("/")
    if parts[0] != ".wvc" or len(parts) < 2 or not path.isprintable() or {"", ".", "..", ".git"} & set(parts):
        raise BadInput(f"{printable(path)!r} is not the path of a tracked file of wvc")
    for depth in range(1, len(parts)):
        fsio.check_plain(git.work_tree.joinpath(*parts[:depth]))
    final = git.work_tree.joinpath(*parts)
    if final.is_dir() and not final.is_symlink():
        raise Conflict(f"{final} is a directory where wvc keeps a file", "move it away, then try again")
    return final


def _note(git: GitDir) -> Path:
    return scratch(git) / "pending.json"


def note(git: GitDir, commit: str, paths: Collection[str]) -> None:
    """Record durably that ``paths`` must be brought up to date once ``commit`` is in the history of ``HEAD``."""
    made = {"boot": locks.boot(), "commit": commit, "paths": sorted(paths)}
    fsio.write_file(_note(git), canon.document(made))


def pending(git: GitDir) -> set[str]:
    """Return the paths that an interrupted commit may have left behind ``HEAD``.

    They are those of a commit in the history of ``HEAD``, or of one that was since replaced, as by ``git commit
    --amend``: ``HEAD`` has what it made. On another branch there is nothing to bring up to date.

    Raises:
        Corrupt: the note is not one of :func:`note`.
    """
    noted = _noted(git)
    try:
        if noted is None or git.is_ancestor(noted.commit, "HEAD"):
            return set() if noted is None else noted.paths
        made, now = git.read_tree(noted.commit), git.read_tree("HEAD")
    except NotFound:
        return set()
    alike = all(made.get(path) == now.get(path) for path in noted.paths)
    return noted.paths if alike and not made.keys().isdisjoint(noted.paths) else set()


def behind(git: GitDir) -> Stale:
    """Return what an interrupted commit has left behind ``HEAD``.

    That is what is still as it was before the commit. Whatever else is there, somebody has put there since.

    Raises:
        Corrupt: the note is not one of :func:`note`.
    """
    paths, noted = sorted(pending(git)), _noted(git)
    if not paths or noted is None:
        return Stale()
    at = {path: target(git, path) for path in paths}
    before = git.read_tree(parents[0]) if (parents := git.parents(noted.commit)) else {}
    found, unmerged, head = git.indexed(paths), git.unmerged(), git.read_tree("HEAD")
    paths = [path for path in paths if path not in unmerged and head.get(path) != before.get(path)]
    entries = [path for path in paths if found.get(path, set()) == ({before[path]} if path in before else set())]
    files = [path for path in paths if before.get(path) in _ids(git, path, at[path], len(noted.commit))]
    return Stale(tuple(entries), tuple(files))


def _ids(git: GitDir, path: str, file: Path, digits: int) -> set[str | None]:
    """Return what git may call a file's contents: as they are, or with its own conversions, as of line ends, undone."""
    try:
        data = read_file(file, "")
    except FileNotFoundError:
        return {None}
    except Corrupt:  # something that is no file, which nobody here has put there
        return set()
    converted = ("hash-object", "--stdin", f"--path={path}")
    asked = process.run(git.work_tree, *converted, stdin=data, settings=process.no_filters(git.work_tree))
    return {object_id("blob", data, digits), asked.decode().strip()}


def _noted(git: GitDir) -> _Note | None:
    """Return the note; ``None`` if there is none."""
    file = _note(git)
    try:
        data = read_file(file, "", most=2**24)
        noted = fields.mapping(canon.parse_document(data, str(file)), str(file), ("boot", "commit", "paths"))
        boot, commit = (fields.typed(noted[key], str, str(file)) for key in ("boot", "commit"))
        paths = {fields.typed(path, str, str(file)) for path in fields.typed(noted["paths"], list, str(file))}
        return _Note(boot, commit, paths)
    except FileNotFoundError:
        return None
    except (BadInput, Corrupt) as error:
        undo = "if `git status` then shows changes below .wvc, `git restore --staged --worktree .wvc` undoes them"
        raise Corrupt(str(error), f"delete {file}; {undo}") from None


def settle(git: GitDir, stale: Stale, patience: float, *, done: str = "a commit is made") -> tuple[str, ...]:
    """Give the index and the work tree ``HEAD``'s state of what is behind it, then drop the note.

    Args:
        git: The repository.
        stale: Tracked paths below ``.wvc/``.
        patience: Seconds to wait for another git process to let go of the index.
        done: What the warning begins with.

    Returns:
        Warnings, if that could not be done; the note is then kept.
    """
    try:
        _refresh(git, stale, patience)
        fsio.remove_tree(scratch(git))
    except (WeightvcError, OSError) as error:
        where, lock = git.work_tree / ".wvc", git.git_dir / "index.lock"
        by_hand = f"git restore --staged --worktree .wvc && rm -r {shlex.quote(str(scratch(git)))}"
        again = f"the next wvc command tries again, or run `{by_hand}`"
        again = f"if no git command is running, delete {lock}; {again}" if lock.exists() else again
        return (f"{done}, but git's index or the files in {where} are not up to date ({error}); {again}",)
    return ()


def recover(git: GitDir) -> tuple[str, ...]:
    """Finish what an interrupted :func:`weightvc.history.commit.commit` left; does nothing when there is nothing.

    While git itself waits to be continued, the index is the user's work: then what it would undo is only said.

    Returns:
        Warnings, if that could not be done.
    """
    if not scratch(git).exists():
        return ()
    try:
        _prepare(git)
        doing = under_way(git)
        return _said(behind(git), doing) if doing else _recovered(git)
    except OSError as error:
        if error.errno not in fsio.READ_ONLY:
            raise
        return (f"what an interrupted commit left in {git.git_dir} cannot be brought up to date here ({error})",)
    except WeightvcError as error:
        hint = f": {error.hint}" if error.hint else ""
        return (f"{error}{hint}" if isinstance(error, Corrupt) else f"{_note(git)}: {error}{hint}",)


def _said(stale: Stale, doing: str) -> tuple[str, ...]:
    if not stale:
        return ()
    paths = sorted({*stale.index, *stale.files})
    state = f"{listed(paths)}: git's index or files are as they were before a commit of wvc's that was interrupted"
    restore = shlex.join(["git", "restore", "--staged", "--worktree", *paths])
    undone = f"`git {doing} --continue` or `git commit` would take that commit back"
    return (f"{state}, and {undone}; unless you want this, run `{restore}`",)


def _recovered(git: GitDir) -> tuple[str, ...]:
    """Finish it under the lock, and wait for that no longer than a commit takes: one that is stopped may hold it."""
    deadline = time.monotonic() + INDEX_PATIENCE
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(refs_locked(git, wait=False))
                break
            except Conflict as error:
                if time.monotonic() > deadline:
                    return (f"{error}; what an interrupted commit left is not up to date before that has ended",)
                time.sleep(0.05)
        return settle(git, behind(git), patience=0)


def _refresh(git: GitDir, stale: Stale, patience: float) -> None:
    if not stale:
        return
    files = {path: target(git, path) for path in sorted({*stale.index, *stale.files})}
    head = git.resolve("HEAD")
    tree = git.read_tree(head)
    if stale.index:
        # The index first: a file that is merely modified does no harm to the user's next commit.
        _write_index(git, index_lines({path: tree.get(path) for path in sorted(stale.index)}, len(head)), patience)
        fsio.sync_dir(git.git_dir)  # which git does not do: or the note could be gone, and the index the old one
    blobs = git.read_blobs(sorted({tree[path] for path in stale.files if path in tree}))
    for path in sorted(stale.files):
        if path in tree:
            fsio.make_dirs(files[path].parent)
            fsio.write_file(files[path], blobs[tree[path]])
        else:
            fsio.remove_file(files[path])
    for directory in {file.parent for file in files.values()}:
        for left in filter(lambda entry: fsio.SCRATCH.fullmatch(entry.name), directory.glob("tmp-*")):
            fsio.remove_file(left)


def index_lines(blobs: dict[str, str | None], digits: int) -> bytes:
    """Return input of ``git update-index -z --index-info``.

    Args:
        blobs: Path → blob id, ``None`` to drop the path.
        digits: Length of an object id in this repository: 40 or 64.
    """
    lines = (f"{'100644' if blob else '0'} {blob or '0' * digits}\t{path}\0" for path, blob in blobs.items())
    return "".join(lines).encode()


def _write_index(git: GitDir, lines: bytes, patience: float) -> None:
    settings = process.no_filters(git.work_tree)
    deadline = time.monotonic() + patience
    while True:
        try:
            process.run(git.work_tree, "update-index", "-z", "--index-info", stdin=lines, settings=settings)
        except GitFailed as error:
            if "File exists" not in error.stderr or time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return
