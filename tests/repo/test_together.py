"""Many processes in one repository: nothing that was acknowledged is lost, and nothing stays locked."""

import subprocess
import sys
import time

import pytest

COMMIT = """
import sys
import weightvc
from weightvc.util.errors import RequestError

repo = weightvc.open(sys.argv[1])
for number in range(int(sys.argv[4])):
    name = f"w{sys.argv[3]}-{number}"
    repo.add(sys.argv[2], name, codec="raw" if number % 2 else "intdelta", jobs=1)
    try:
        repo.commit(f"Add {name}")
    except RequestError as error:  # another process has committed it with its own
        assert "nothing" in error.what, error
    print(name, flush=True)
"""

COLLECT = """
import sys
import weightvc
from weightvc.util.errors import Conflict

repo, runs = weightvc.open(sys.argv[1]), 0
while not runs or sys.stdin.read(1):
    try:
        repo.gc(grace_days=0)
        runs += 1
    except Conflict:
        pass
print(runs)
"""


def start(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)


@pytest.mark.parametrize(("workers", "tasks", "collects"), [(8, 15, False), (3, 6, True)])
def test_all_that_was_acknowledged_is_there(  # noqa: PLR0917 -- three of them are fixtures
    two, models, tmp_path, workers, tasks, collects
):
    sources = [models.write(tmp_path / f"m{n}", models.tuned(models.base(), n)) for n in range(workers)]
    collector = start(COLLECT, two.path) if collects else None
    started = [start(COMMIT, two.path, sources[number], number, tasks) for number in range(workers)]
    while collector is not None and any(one.poll() is None for one in started):
        time.sleep(0.05)
        collector.stdin.write(".")
        collector.stdin.flush()
    said = [one.communicate() for one in started]

    assert [one.returncode for one in started] == [0] * workers, [err for _, err in said]
    if collector is not None:
        out, err = collector.communicate()
        assert (collector.returncode, err) == (0, "")
        assert int(out) > 0
    names = {name for out, _ in said for name in out.split()}
    assert len(names) == workers * tasks
    status = two.json("status")
    assert names == {line["task"] for line in status["tasks"]} - {"alpha", "beta"}
    assert not status["staged"]
    assert [path.name for path in (two.path / ".git").rglob("*.lock") if path.stat().st_size] == []
    assert {path.name for path in (two.path / ".git").rglob("*.lock")} <= {"refs.lock", "stage.lock"}
    two.git("fsck", "--strict")
    assert two.json("fsck", "--full")["ok"]
    two.wvc("revert", "w0-0")
