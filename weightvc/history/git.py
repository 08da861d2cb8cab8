"""Where a repository is, and reading its commits."""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from weightvc.history import contents, files, process, revision
from weightvc.history.contents import Content
from weightvc.history.process import GitFailed
from weightvc.util.errors import NotARepository, RequestError
from weightvc.util.text import printable

_STRANGERS = re.compile(r"dubious ownership in repository at '(.+)'$", re.MULTILINE)
"""What git says of a repository that belongs to somebody else."""

_DIGITS = 18
_SUBMODULE = "160000"

_LOG_FIELDS = ("%H", "%P", "%an <%ae>", "%at", "%s", "%b")


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One commit.

    Args:
        commit: Its full id.
        parents: The full ids of its parents.
        author: ``Name <email>``, as recorded; not made safe for a terminal.
        time: When it was authored, in seconds since 1970 UTC, by the author's own clock.
        subject: The first paragraph of the message on one line.
        body: The rest of the message.
    """

    commit: str
    parents: tuple[str, ...]
    author: str
    time: int
    subject: str
    body: str


@dataclass(frozen=True)
class GitDir:
    """A git repository with a work tree, which may be one of several linked ones.

    Args:
        work_tree: Top of the work tree.
        git_dir: This work tree's own git directory, which holds its ``HEAD`` and ``index``.
        common_dir: The git directory that all its work trees share.
    """

    work_tree: Path
    git_dir: Path
    common_dir: Path

    def head(self) -> str | None:
        """Return the full id of the commit at ``HEAD``, or ``None`` on a branch without commits.

        Raises:
            Corrupt: the file of ``HEAD`` or its branch holds no id, or that of a commit that git does not have.
        """
        return revision.head(self.work_tree, self.git_dir, self.common_dir)

    def resolve(self, rev: str) -> str:
        """Return the full id of the commit that ``rev`` names.

        Raises:
            NotFound: ``rev`` names no commit, or starts with ``-`` or ``^``.
            Corrupt: a commit on the way, as of ``HEAD~2``, does not have the contents that its id stands for.
        """
        for commits in revision.passed(self.work_tree, rev):
            self._checked(commits)
        return revision.resolve(self.work_tree, rev)

    def read(self, rev: str, path: str) -> bytes | None:
        """Return a file's bytes at a revision, or ``None`` if there is no such file."""
        found = self._checked([f"{self.resolve(rev)}:{path}"])[0] if "\n" not in path else None
        return found.data if found is not None and found.kind == "blob" else None

    def read_tree(self, rev: str, prefix: str = ".wvc/", *, checked: bool = True) -> dict[str, str]:
        """Return path → blob id of the files of wvc at a revision, or of another path; submodules are passed over.

        Raises:
            Corrupt: the commit, or a tree on the way, does not have the contents that its id stands for; unless
                ``checked`` is false, which is quicker over many revisions.
        """
        commit = self.resolve(rev)
        found = files.listing(self.work_tree, commit, prefix)
        if checked:
            self._checked([commit, f"{commit}^{{tree}}", *found["tree"].values()])
        return found["blob"]

    def unmerged(self, prefix: str = ".wvc/") -> tuple[str, ...]:
        """Return the paths under ``prefix`` of which the index holds several sides of a conflict, sorted."""
        listed = process.run(self.work_tree, "ls-files", "--unmerged", "-z", "--full-name", "--", prefix)
        return tuple(sorted({os.fsdecode(entry.split(b"\t", 1)[1]) for entry in listed.split(b"\0")[:-1]}))

    def read_blobs(self, blobs: Sequence[str], most: int | None = None) -> dict[str, bytes]:
        """Return blob id → bytes, ``most`` of them together.

        Raises:
            Corrupt: one does not have the contents that its id stands for, which git itself does not check; or they
                have more bytes.
            Missing: git does not have one of them, as in a partial clone.
        """
        found = {}
        for blob, content in zip(blobs, self._checked(blobs, most), strict=True):
            if content is None or content.kind != "blob":
                raise process.missing(blob)
            found[blob] = content.data
        return found

    def size(self, blobs: Sequence[str]) -> int:
        """Return how many bytes some blobs have together, as far as git has them."""
        return sum(found[1] for found in contents.sizes(self.work_tree, blobs) if found is not None)

    def log(self, rev: str = "HEAD", paths: Sequence[str] = (), max_count: int | None = None) -> Iterator[LogEntry]:
        """Return the commits reachable from ``rev``, newest first.

        Args:
            rev: Where to start.
            paths: Only commits that changed one of these files or directories, on sides that a merge dropped too, and
                merges that differ there from any of their sides; all commits if empty.
            max_count: At most so many.
        """
        limit = [] if max_count is None else [f"--max-count={max_count}"]
        limit += ["--full-history"] if paths else []
        shape = "--format=tformat:" + "%x00".join(_LOG_FIELDS)
        out = process.run(
            self.work_tree, "log", "-z", "--no-show-signature", "--no-color", "--encoding=UTF-8", "--no-patch",
            "--no-mailmap", shape, *limit, self.resolve(rev), "--", *paths,
        )  # fmt: skip
        fields = iter(out.decode("utf-8", "replace").split("\0")[:-1])
        for commit, parents, author, time, subject, body in zip(*[fields] * len(_LOG_FIELDS), strict=True):
            yield LogEntry(commit, tuple(parents.split()), author, _seconds(time), subject, body)

    def parents(self, rev: str) -> tuple[str, ...]:
        """Return the full ids of a commit's parents."""
        return next(self.log(rev, max_count=1)).parents

    def is_cut_off(self, rev: str) -> bool:
        """Tell whether git hides parents of a commit, as at the end of a shallow clone's history."""
        raw = process.run(self.work_tree, "cat-file", "commit", self.resolve(rev)).partition(b"\n\n")[0]
        stated = sum(line.startswith(b"parent ") for line in raw.splitlines())
        return stated != len(self.parents(rev))

    def is_shallow(self) -> bool:
        """Tell whether the clone has only the end of history."""
        return (self.common_dir / "shallow").exists()

    def is_ancestor(self, old: str, new: str) -> bool:
        """Tell whether ``old`` is ``new`` or reachable from it."""
        try:
            process.run(self.work_tree, "merge-base", "--is-ancestor", self.resolve(old), self.resolve(new))
        except GitFailed as error:
            if error.status == 1 and "error:" not in error.stderr:  # git ends alike over an object it cannot read
                return False
            raise
        return True

    def first_with(self, path: str, blob: str) -> str:
        """Return the full id of the first commit that has a file's contents at a path; empty if no ref reaches one."""
        walk = ("log", "--all", "--format=%H", "--reverse", f"--find-object={blob}", "--", path)
        return process.line(self.work_tree, *walk).partition("\n")[0]

    def present(self, path: str) -> set[str]:
        """Return the ids of what ``HEAD``, the commits that refs name, and the index have at a path."""
        indexed = self.indexed((path,)).get(path, set())
        if "\n" in path:  # which ends a name that git is asked for
            return {*self.all_blobs((path.rpartition("/")[0],)).get(path, ())} | indexed
        refs = process.line(self.work_tree, "for-each-ref", "--format=%(objectname)").split()
        return files.present(self.work_tree, ["HEAD", *refs], path) | indexed

    def trees(self) -> "tuple[GitDir, ...]":
        """Return this repository with the git directory of each of its work trees, linked ones too.

        Only what is in git directories is right of the others: where their files are, is not looked up.
        """
        linked = sorted(path for path in self.common_dir.glob("worktrees/*") if path.is_dir())
        return tuple(GitDir(self.work_tree, path, self.common_dir) for path in (self.common_dir, *linked))

    def indexed(self, paths: Sequence[str] = (".wvc",), *, undo: bool = False) -> dict[str, set[str]]:
        """Return path → the blob ids that the index has of it, of each side where a merge left several.

        With ``undo`` those that it keeps of conflicts that are resolved, which git can bring back.
        """
        index = self.git_dir / "index"
        if not index.exists():
            return {}
        which = "--resolve-undo" if undo else "--stage"
        listed = process.run(self.work_tree, "ls-files", which, "-z", "--full-name", "--", *paths, index=index)
        found: dict[str, set[str]] = {}
        for entry in listed.split(b"\0")[:-1]:
            meta, path = entry.split(b"\t", 1)
            mode, blob, _ = meta.decode().split(" ")
            if mode != _SUBMODULE:
                found.setdefault(os.fsdecode(path), set()).add(blob)
        return found

    def all_blobs(
        self,
        paths: Sequence[str] = files.DIRECTORIES,
        *,
        tips: Sequence[str] = ("--all",),
        reflogs: bool = False,
        also: Sequence[str] = (),
    ) -> dict[str, set[str]]:
        """Return path → every blob id it ever had, over all commits that a ref or a work tree's ``HEAD`` reaches.

        Or only over those that ``tips``, full ids, reach. With ``reflogs`` also those that a reflog names, stashes
        below the newest among them; and those that ``also`` names, by full ids. Commits that nothing names any more
        are not looked at. See :func:`.files.blobs`.
        """
        walk = ("rev-list", *tips, *(["--reflog"] if reflogs else []), "--full-history", "--stdin", "--", *paths)
        asked = "".join(f"{commit}\n" for commit in also).encode()
        commits = process.run(self.work_tree, *walk, stdin=asked, strict=reflogs).decode().split()
        return files.blobs(self.work_tree, self.common_dir / "objects", commits, paths)

    def _checked(self, names: Sequence[str], most: int | None = None) -> list[Content | None]:
        return list(contents.checked(self.work_tree, self.common_dir / "objects", names, most))


def _seconds(text: str) -> int:
    """Return a time as git gives it, cut where it is beyond all calendars, and 0 for what is none."""
    return int(text[:_DIGITS]) if text.isdecimal() else 0


def discover(path: Path) -> GitDir:
    """Find the repository that holds ``path``, whatever ``GIT_DIR`` says.

    Raises:
        NotARepository: there is none, it has no work tree, or its work tree is elsewhere.
        RequestError: git refuses it, for instance because it belongs to somebody else.
    """
    found = locate(path) if path.is_dir() else None
    if found is None:
        raise NotARepository(
            f"{path} is not in a git repository",
            "name a repository with -C DIR, or make one with `wvc init --base PATH`",
        )
    return found


def locate(path: Path) -> GitDir | None:
    """Find the repository that the directory ``path`` lies in as :func:`discover` does; ``None`` if there is none."""
    try:
        out = process.line(
            path, "rev-parse", "--path-format=absolute", "--show-toplevel", "--git-dir", "--git-common-dir"
        )
    except GitFailed as error:
        if "not a git repository" in error.stderr:
            return None
        if "must be run in a work tree" in error.stderr:
            raise NotARepository(f"{path} is in a git repository without a work tree", "use a clone with one") from None
        if top := _STRANGERS.search(error.stderr):
            raise RequestError(
                f"{printable(top[1])} belongs to somebody else, and git does not trust it",
                f"if you do, run `git config --global --add safe.directory {printable(top[1])}`",
            ) from None
        raise
    parts = out.split("\n")
    if len(parts) != 3 or not path.resolve().is_relative_to(parts[0]):
        raise NotARepository(
            f"{path} is in a git repository whose work tree is elsewhere, or whose path has a line break",
            "`git config core.worktree` shows where it is; use a clone without that setting",
        )
    found = GitDir(*map(Path, parts))
    known = (found.common_dir, *(found.common_dir / "worktrees").glob("*"))
    if not any(directory.exists() and os.path.samefile(found.git_dir, directory) for directory in known):
        raise NotARepository(
            f"{found.git_dir} says that it belongs to {found.common_dir}, which knows nothing of it",
            "clone the repository, or add a work tree to it with `git worktree add`",
        )
    return found
