"""The model of a disk itself: what it calls certain, and what it lets a power cut take."""

import disk
import pytest
from disk import DIRECTORY, Disk
from recorder import Operation

BEFORE = {"old": b"old", "sub": DIRECTORY, "sub/kept": b"kept"}
INODES = {1: ".", 2: "old", 3: "sub", 4: "sub/kept"}


def after(*operations):
    """A disk that held BEFORE and then got operations, each ``(kind, path, …)`` as :class:`Operation` has them."""
    return Disk(BEFORE, INODES, [Operation(n, *operation) for n, operation in enumerate(operations, 1)])


def contents(made, path):
    """What there may be under a name in the end; ``...`` if nothing."""
    return {crash.tree.get(path, ...) for crash in made.crashes(len(made))}


NEW = [("c", "new", 9), ("w", "new", 9, 0, "", b"1234")]
SYNC_FILE = ("s", "new", 9)
SYNC_DIRECTORY = ("s", ".", 1)


@pytest.mark.parametrize(
    ("operations", "allowed"),
    [
        (NEW, {..., b"", b"12", b"\0\0\0\0", b"1234"}),
        ([*NEW, SYNC_FILE], {..., b"1234"}),
        ([*NEW, SYNC_DIRECTORY], {b"", b"12", b"\0\0\0\0", b"1234"}),
        ([*NEW, SYNC_FILE, SYNC_DIRECTORY], {b"1234"}),
        ([*NEW, SYNC_DIRECTORY, SYNC_FILE], {b"1234"}),
        ([*NEW, ("s", "sub", 3)], {..., b"", b"12", b"\0\0\0\0", b"1234"}),
    ],
)
def test_a_new_file_needs_both_syncs(operations, allowed):
    assert contents(after(*operations), "new") == allowed


def test_a_rename_is_one_change():
    made = after(*NEW, SYNC_FILE, ("r", "new", 0, 0, "old"))

    assert contents(made, "old") == {b"old", b"1234"}
    assert contents(after(*NEW, SYNC_FILE, ("r", "new", 0, 0, "old"), SYNC_DIRECTORY), "old") == {b"1234"}
    assert all("old" in crash.tree for crash in made.crashes(len(made)))


def test_a_rename_before_the_sync_may_leave_an_empty_file():
    assert b"" in contents(after(*NEW, ("r", "new", 0, 0, "old"), SYNC_DIRECTORY), "old")


def test_a_rename_between_directories():
    move = ("r", "sub/kept", 0, 0, "kept")
    for synced in ([], [SYNC_DIRECTORY], [("s", "sub", 3)]):
        made = after(move, *synced)
        found = {("kept" in crash.tree, "sub/kept" in crash.tree) for crash in made.crashes(len(made))}
        assert found == ({(True, False)} if synced else {(True, False), (False, True)})


def test_removals_come_back_until_they_are_synced():
    assert contents(after(("u", "old")), "old") == {b"old", ...}
    assert contents(after(("u", "old"), SYNC_DIRECTORY), "old") == {...}


def test_what_is_in_a_directory_goes_with_its_name():
    made = after(("m", "dir", 8), ("c", "dir/file", 9), ("s", "dir/file", 9), ("s", "dir", 8))

    assert {"dir" in crash.tree for crash in made.crashes(4)} == {True, False}
    assert all(("dir" in crash.tree) == ("dir/file" in crash.tree) for crash in made.crashes(4))


def test_links_and_reused_inodes():
    made = after(
        *NEW, SYNC_FILE, ("l", "new", 0, 0, "sub/second"), ("u", "new"), ("c", "other", 9),
        ("w", "other", 9, 2, "", b"x"), ("t", "other", 9, 5), ("y", "link", 0, 0, "target"), ("d", "nothing"),
    )  # fmt: skip

    assert made.tree() == {**BEFORE, "sub/second": b"1234", "other": b"\0\0x\0\0", "link": b"-> target"}


def test_every_tree_once_and_the_end_in_full():
    made = after(*NEW, SYNC_FILE, SYNC_DIRECTORY, ("u", "old"))
    crashes = disk.distinct(made)
    digests = [disk.digest(crash.tree) for crash in crashes]

    assert len(digests) == len(set(digests))
    assert sum(crash.ended for crash in crashes) == 2
    assert disk.digest(BEFORE) in digests
    assert disk.digest(made.tree()) in digests
    assert len(disk.distinct(made, lambda path: path == "new")) < len(crashes)
    chosen = disk.spread(crashes, 2)
    assert [crash for crash in crashes if crash.ended] == [crash for crash in chosen if crash.ended]


def test_trees_are_written_as_they_are(tmp_path):
    tree = {**BEFORE, "link": b"-> old", "empty": DIRECTORY}
    disk.write(tree, tmp_path / "copy")

    assert disk.scan(tmp_path / "copy")[0] == tree
