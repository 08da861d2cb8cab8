"""The repository's own list of ignored paths, which is not tracked."""

from weightvc.history.git import GitDir
from weightvc.util import fsio, scratch
from weightvc.util.errors import Conflict
from weightvc.util.reading import read_file


def exclude(git: GitDir, pattern: str) -> None:
    """Make git ignore ``pattern``, written as in ``.gitignore``, in this clone; does nothing the second time.

    Raises:
        Conflict: the list is a symbolic link or no file.
    """
    path = git.common_dir / "info" / "exclude"
    fsio.make_dirs(path.parent)
    scratch.sweep_files(path.parent)
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise Conflict(f"{path} is not a regular file", f"replace it by a file, or add the line {pattern} yourself")
    add = f"add the line {pattern} to it yourself, and see what the file is for"
    old = read_file(path, add, most=2**24) if path.exists() else b""
    line = pattern.encode()
    if line not in old.splitlines():
        fsio.write_file(path, old + (b"\n" if old and not old.endswith(b"\n") else b"") + line + b"\n")
