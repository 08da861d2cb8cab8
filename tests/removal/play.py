"""Plays histories of repositories step by step, in this process or, run as a script, in one of its own.

A step is ``[verb, *arguments]``; the verbs are below. As a script: standard input holds ``{"root": DIR, "models": DIR,
"plays": {NAME: {"steps": […], "checkouts": {LABEL: request}}}}``, standard output ``{NAME: {LABEL: listing}}``.
"""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import weightvc

LOCK = "wvc.lock.json"


def play(root, models, steps):
    """Make a repository at ``root`` over the base in the directory ``models``, take the steps and return it."""
    weightvc.initialize(root, Path(models) / "base", jobs=1)
    return take(weightvc.open(root), models, steps)


def take(repo, models, steps):
    """Take steps in a repository, adding models from the directory ``models``."""
    for verb, *arguments in steps:
        if verb == "add":
            name, model, codec = arguments
            repo.add(Path(models) / model, name, codec=codec, jobs=1)
        else:
            VERBS[verb](repo, *arguments)
    return repo


def commit(repo):
    repo.commit("a commit")


def revert(repo, name):
    repo.revert(name, jobs=1)


def repack(repo, codec, level):
    repo.repack(codec=codec, level=level, jobs=1)


def save(repo, name, request):
    repo.save_recipe(name, **request)


def git(repo, *arguments):
    done = subprocess.run(
        ["git", *arguments],
        cwd=repo.git.work_tree,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.strip("\n")


VERBS = {"commit": commit, "git": git, "repack": repack, "revert": revert, "save": save}


def build(repo, directory, checkouts, jobs=1):
    """Check out every labelled request below ``directory`` and return what was written by label."""
    made = {}
    for label, request in checkouts.items():
        repo.checkout(**request, output=directory / label, jobs=jobs)
        made[label] = listing(directory / label)
    return made


def listing(directory):
    """Return all that must not depend on a removed task: every file's bytes, and the lock but for its bookkeeping.

    Two things in a lock are no part of the output and do differ between two repositories: the commit that it was
    built from, and the UUIDs that the tasks drew when they were added.
    """
    files = {
        path.relative_to(directory).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != LOCK
    }
    lock = json.loads((directory / LOCK).read_bytes())
    del lock["commit"]
    for task in lock["tasks"]:
        del task["uuid"]
    return {"files": files, "lock": lock}


def main():
    job = json.load(sys.stdin)
    made = {}
    for name, told in job["plays"].items():
        root = Path(job["root"]) / name
        repo = play(root / "repo", job["models"], told["steps"])
        made[name] = build(repo, root / "out", told["checkouts"])
    json.dump(made, sys.stdout)


if __name__ == "__main__":
    main()
