"""What must hold of a repository after a crash: everything is whole, the old or the new, and work goes on."""

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

OWN_LOCKS = frozenset({"wvc/config.lock", "wvc/refs.lock", "wvc/stage.lock", "wvc/tmp/mend.lock"})
"""Files that stay: the kernel frees the lock on them."""

_SCRATCH = re.compile(r"tmp-\d+-[0-9a-f]{16}|\..+\.(wvc|old)-\d+-[0-9a-f]{8}|index\.lock|pending\.json")

UNREAD = re.compile(r"(.*/)?(tmp-\d+-[0-9a-f]{16}|tmp_obj_\w+|[^/]+\.lock)")
"""The paths of files that get other names when they are whole, and are never read before; git's own, too."""

_BOOT = re.compile(rb'"boot":\s*"[^"]*"')

_VOLATILE = re.compile(rb'"(added|uuid)":\s*"[^"]*"|xxh3-128 [0-9a-f]{32}\n\Z')
"""What another run of the same command stages otherwise."""


@dataclass(frozen=True)
class Seen:
    """What a repository says of itself: the commit, what is staged, and a digest of the model that is checked out."""

    head: str
    staged: str
    model: str


def _digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file()) if root.is_dir() else []
    texts = [f"{path.relative_to(root)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(texts).encode()).hexdigest() if texts else ""


def _git(root: Path, *arguments: str) -> tuple[int, str]:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout.strip()


def locks(root: Path) -> list[Path]:
    """Return the lock files that git left."""
    git = root / ".git"
    found = [path for path in git.rglob("*.lock") if path.relative_to(git).as_posix() not in OWN_LOCKS]
    return [path for path in found if path.parent.name != "commit"]


def restart(root: Path) -> None:
    """Make the locks of git's and the note of a commit what they are then: from before the start of the machine."""
    notes = list(root.glob(".git/wvc/commit/pending.json"))
    for note in notes:
        note.write_bytes(_BOOT.sub(b'"boot":"another"', note.read_bytes()))
    for path in (*locks(root), *notes):
        os.utime(path, (1, 1))


def left_over(root: Path) -> list[str]:
    """Return the scratch files of wvc's that are there, and the locks of git's."""
    paths = [path for path in root.rglob("*") if _SCRATCH.fullmatch(path.name)] + locks(root)
    return sorted({path.relative_to(root).as_posix() for path in paths})


class Judge:
    """Looks at repositories.

    Args:
        wvc: Runs the command line: ``wvc(*arguments)`` returns its code, output and errors.
        models: A directory of checkpoints that can be added; ``base`` is the base and ``next`` in no repository yet.
    """

    def __init__(self, wvc: Callable, models: Path) -> None:
        self._wvc = wvc
        self._models = models

    @staticmethod
    def look(root: Path) -> Seen:
        """Return what a repository says of itself. A model that was moved aside is still there, if it is alone."""
        code, head = _git(root, "rev-parse", "--verify", "--quiet", "HEAD") if (root / ".git").is_dir() else (1, "")
        model, aside = root / "model", sorted(root.glob(".model.old-*"))
        if not model.exists() and len(aside) == 1:
            model = aside[0]
        return Seen(head if code == 0 else "", _staged(root / ".git/wvc/stage"), _digest(model))

    def violations(self, root: Path, old: Seen, new: Seen, *, done: bool, unaided: bool) -> list[str]:
        """Return what is wrong: with a repository that was ``old`` when a command began that makes it ``new``.

        ``done`` tells whether the command had ended well, ``unaided`` whether the next commands have to work while
        locks of git's are there. Goes on with the repository, and changes it.
        """
        found = differs(root, [new] if done else [old, new])
        if not found and self.look(root).head:
            found = self.whole(root)
        return found or self.goes_on(root, unaided=unaided)

    def run(self, root: Path, *arguments: str) -> object:
        """Run a command, and return how it ended."""
        return self._wvc("-C", root, *arguments)

    def whole(self, root: Path) -> list[str]:
        """Return what git and wvc find wrong."""
        ran = self._wvc("-C", root, "fsck", "--full", "-j", "1")
        return self._sound(root) + ([f"wvc fsck: {ran.code} {ran.out} {ran.err}"] if ran.code else [])

    @staticmethod
    def _sound(root: Path) -> list[str]:
        code, said = _git(root, "fsck", "--no-dangling", "--no-progress")
        return [f"git fsck: {said}"] if code or "error" in said else []

    def goes_on(self, root: Path, *, unaided: bool) -> list[str]:
        """Return what keeps the next commands from doing their work, or is left over after them.

        Unless they have to do it ``unaided``, they may name a lock that a killed git left, and work without it.
        """
        for arguments in self._next(root):
            ran = self._wvc("-C", root, *arguments)
            if not unaided and (ran.code or ran.err) and (left := locks(root)):
                if not any(str(path) in ran.err for path in left):
                    return [f"{arguments[0]} does not name {left}: {ran.err}"]
                for path in left:
                    path.unlink()
                ran = self._wvc("-C", root, *arguments)
            if ran.code or ran.err:
                return [f"next, {arguments[0]}: {ran.code} {ran.err}"]
        code, status = _git(root, "status", "--porcelain", "--", ".wvc")
        found = [f"git status: {code} {status}"] if code or status else []
        found += [f"left over: {name}" for name in left_over(root)]
        return found or self._sound(root)

    def _next(self, root: Path) -> list[tuple]:
        init = [] if self.look(root).head else [("init", root, "--base", self._models / "base", "-j", "1")]
        add = ("add", self._models / "next", "--task", "next", "-j", "1")
        return [*init, add, ("commit", "-m", "next"), ("checkout", "--force", "-j", "1")]


def differs(root: Path, allowed: Sequence[Seen]) -> list[str]:
    """Return in what a repository is as none of those that are ``allowed``."""
    now = Judge.look(root)
    return [
        f"{name} is {getattr(now, name)!r}, neither old nor new" if len(allowed) > 1 else f"{name} is lost"
        for name in ("head", "staged", "model")
        if getattr(now, name) not in {getattr(seen, name) for seen in allowed}
    ]


def _staged(stage: Path) -> str:
    files = {path.name: path.read_bytes() for path in stage.glob("*/*") if not path.name.startswith("tmp-")}
    alike = {name: _VOLATILE.sub(b"", data) for name, data in files.items()}
    return " ".join(f"{name}={hashlib.sha256(data).hexdigest()[:12]}" for name, data in sorted(alike.items()))


def copy(root: Path, to: Path) -> Path:
    """Copy a repository, links as links."""
    return Path(shutil.copytree(root, to, symlinks=True))


def memory() -> Path | None:
    """Return a directory in memory, where a sync costs nothing; ``None`` if there is none."""
    where = Path("/dev/shm")
    return where if where.is_dir() and os.access(where, os.W_OK) else None
