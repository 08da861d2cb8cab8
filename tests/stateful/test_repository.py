"""Random commands against a plain dictionary of checkpoints: after each one the repository says what the model says."""

import math
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from weightvc.util.errors import NotFound, RequestError

NAMES = ("a", "b", "c")
LABELS = ("p", "q")
COEFFICIENTS = (1.0, 0.7, -0.3)  # no three of them sum to zero

names = st.sampled_from(NAMES)
labels = st.sampled_from(LABELS)
numbers = st.integers(0, 5)
methods = st.sampled_from(["task_arithmetic", "linear", "opcm-s", "opcm"])


@dataclass(frozen=True)
class Task:
    """A task version: the number of its checkpoint, and when its task was first added."""

    number: int
    added: int


@dataclass(frozen=True)
class Tree:
    """What a commit holds, or, as changes to one, what is staged; a staged recipe that is ``None`` is a removal."""

    tasks: dict = field(default_factory=dict)
    recipes: dict = field(default_factory=dict)

    def with_changes(self, staged):
        recipes = {label: recipe for label, recipe in {**self.recipes, **staged.recipes}.items() if recipe is not None}
        return Tree({**self.tasks, **staged.tasks}, recipes)

    def without(self, name):
        tasks = {task: version for task, version in self.tasks.items() if task != name}
        recipes = {
            label: recipe and (tuple(pair for pair in recipe[0] if pair[0] != name), recipe[1])
            for label, recipe in self.recipes.items()
        }
        return Tree(tasks, recipes)

    @property
    def order(self):
        return sorted(self.tasks, key=lambda name: self.tasks[name].added)


def spelled(pairs):
    return [name if weight == 1.0 else f"{name}={weight!r}" for name, weight in pairs]


def same(found, wanted):
    """Compare tensors bit for bit."""
    if (found.dtype, found.shape) != (wanted.dtype, wanted.shape):
        return False
    return torch.equal(*(t.contiguous().reshape(-1).view(torch.uint8) for t in (found, wanted)))


class Commands(RuleBasedStateMachine):
    """The model: ``history`` holds a tree for each commit, newest last, and ``staged`` what the next one changes.

    ``last`` keeps dear commands from coming several times in a row, as Hypothesis likes to have them; ``deleted`` says
    that a directory that a checkout wrote is gone, which the next rebuild names.
    """

    def __init__(self, world):
        super().__init__()
        self.world = world
        self.repo = world.new()
        self.history = [Tree()]
        self.staged = Tree()
        self.clock = 0
        self.last = ""
        self.changed = True
        self.deleted = False

    @property
    def head(self):
        return self.history[-1]

    # Commands of wvc

    @initialize(first=numbers, second=numbers)
    def begin(self, first, second):
        self.add("c", first, "intdelta", commit=False)
        self.add("a", second, "raw", commit=True)
        self._save_recipe("p", [("a", 0.7), ("c", 1.0)], "opcm")

    @rule(name=names, number=numbers, codec=st.sampled_from(["intdelta", "raw"]), commit=st.booleans())
    def add(self, name, number, codec, commit):
        known = self.head.tasks.get(name) or self.staged.tasks.get(name)
        self.clock += 1
        if self.repo.add(self.world.path(number), name, codec=codec, jobs=1).staged:
            self.staged.tasks[name] = Task(number, known.added if known else self.clock)
        else:
            assert self.head.tasks[name].number == number
            self.staged.tasks.pop(name, None)
        self.last = "add"
        self.changed = True
        if commit:
            self.commit()

    @precondition(lambda self: self.staged != Tree())
    @rule()
    def commit(self):
        if not self.repo.status().staged:
            with pytest.raises(RequestError, match=r"nothing (to commit|is staged)"):
                self.repo.commit("nothing")
            assert self.head.with_changes(self.staged) == self.head
            return
        self.repo.commit("something")
        self._moved(self.head.with_changes(self.staged))
        self.staged = Tree()

    @precondition(lambda self: self.head.tasks and self.last != "revert")
    @rule(data=st.data(), rebuild=st.booleans())
    def revert(self, data, rebuild):
        name = data.draw(st.sampled_from(self.head.order))
        self.last = "revert"
        number = self.head.tasks[name].number
        after, self.staged = self.head.without(name), self.staged.without(name)
        touched = {label for label, (pairs, _) in self.head.recipes.items() if name in dict(pairs)}
        done = self.repo.revert(name, rebuild=rebuild, jobs=1)
        assert (done.tasks, set(done.recipes)) == ((name,), touched)
        self._moved(after)
        if rebuild:
            dangling = {label for label in touched if not self._known(after.recipes[label][0])}
            assert {line.recipe for line in done.rebuilt} == {None, *(touched - dangling)}
            assert all(line.proved for line in done.rebuilt)
            gone = [warning for warning in done.warnings if warning.startswith("not found: ")]
            twins = any(task.number == number for task in after.tasks.values())
            assert (len(gone), len(done.warnings)) == (self.deleted, len(dangling) + self.deleted + twins)
            self.deleted = False
        again = self.repo.revert(name, rebuild=False, jobs=1)
        assert (again.commit, again.tasks, again.audit) == (None, (name,), done.audit)

    @precondition(lambda self: self.head.tasks)
    @rule(data=st.data(), label=labels, method=methods, commit=st.booleans())
    def save_or_remove_recipe(self, data, label, method, commit):
        self.last = "recipe"
        if label in self.head.with_changes(self.staged).recipes and data.draw(st.booleans()):
            self._remove_recipe(label)
        else:
            self._save_recipe(label, self._draw_pairs(data), method)
        if commit and self.staged != Tree():
            self.commit()

    def _save_recipe(self, label, pairs, method):
        with self._naming(pairs) as known:
            saved = self.repo.save_recipe(label, spelled(pairs), method=method)
        if known and saved.staged:
            self.staged.recipes[label] = (tuple(pairs), method)
        elif known:
            assert self.head.recipes[label] == (tuple(pairs), method)
            self.staged.recipes.pop(label, None)

    def _remove_recipe(self, label):
        self.repo.remove_recipe(label)
        self.staged.recipes.pop(label, None)
        if label in self.head.recipes:
            self.staged.recipes[label] = None
        with pytest.raises(NotFound, match=f"no recipe '{label}'"):
            self.repo.remove_recipe(label)

    # What comes back

    @precondition(lambda self: self.last != "check_out")
    @rule(data=st.data(), method=methods)
    def check_out(self, data, method):
        """A merge of some tasks; recipes, which give what their tasks give; and an older revision."""
        self.last = "check_out"
        if self.head.tasks:
            self._check_merge(self._draw_pairs(data), method)
        for label in {**self.head.recipes, **self.staged.recipes}:
            self._check_recipe(label)
        back = data.draw(st.integers(0, len(self.history) - 1))
        if back:
            self._check_tree(f"HEAD~{back}", self.history[-1 - back])

    def _check_merge(self, pairs, method):
        """Workers change nothing; a sum is what NumPy says, a projection the scaled mean norm of its tasks."""
        request = {"tasks": spelled(pairs), "method": method, "dtype": "F32" if "opcm" in method else None}
        with self._naming(pairs) as known:
            found = dict(self.repo.materialize(**request, jobs=1))
        if not known:
            return
        again = dict(self.repo.materialize(**request, jobs=2))
        assert all(same(again[name], tensor) for name, tensor in found.items())
        if "opcm" in method:
            base = self.world.base
            norms = [abs(weight) * distance(self._tensors(self.head.tasks[name]), base) for name, weight in pairs]
            moving = [norm for norm in norms if norm] or [0.0]  # a copy of the base does not count
            times = 1.8 if method == "opcm-s" and len(moving) > 1 else 1.0
            assert math.isclose(distance(found, base), times * sum(moving) / len(moving), rel_tol=1e-4, abs_tol=1e-6)
        else:
            self._check_sum(found, pairs, method, self.head)

    def _check_recipe(self, label):
        recipe = self.head.recipes.get(label) or self.staged.recipes.get(label)
        if recipe is None:
            with pytest.raises(NotFound, match=f"no recipe '{label}'"):
                self._digest(self.repo, recipe=label)
            return
        pairs, method = recipe
        with self._naming(pairs) as known:
            found = self._digest(self.repo, recipe=label)
        if known:
            assert found == self._digest(self.repo, tasks=spelled(pairs), method=method)

    # Plain git in between

    @precondition(lambda self: self.last != "git")
    @rule(word=st.sampled_from(["commit", "reset", "revert"]))
    def git(self, word):
        """A commit of the user's own file; or the last commit dropped, or taken back by another one."""
        self.last = "git"
        if word == "commit" or len(self.history) == 1:
            self.clock += 1
            (self.repo.git.work_tree / "notes.txt").write_text(f"{self.clock}\n")
            self._git("add", "notes.txt")
            self._git("commit", "-q", "-m", "notes")
            self._moved(self.head)
        elif word == "reset":
            self._git("reset", "-q", "--hard", "HEAD~")
            del self.history[-1]
            self.changed = True
        else:
            self._git("revert", "--no-edit", "HEAD")
            self._moved(self.history[-2])
        assert self._git("status", "--porcelain") == ""

    # After every step

    @invariant()
    def status_says_what_the_model_says(self):
        status = self.repo.status()
        changes = {f".wvc/tasks/{name}.json" for name in self.staged.tasks}
        changes |= {f".wvc/recipes/{label}.toml" for label in self.staged.recipes}
        assert [line.task for line in status.tasks] == self.head.order
        assert set(status.recipes) == self.head.recipes.keys()
        assert status.staged.keys() <= changes
        new = {path for path, change in status.staged.items() if change == "new"}
        assert new == {f".wvc/tasks/{name}.json" for name in self.staged.tasks.keys() - self.head.tasks.keys()} | {
            f".wvc/recipes/{label}.toml"
            for label, recipe in self.staged.recipes.items()
            if recipe is not None and label not in self.head.recipes
        }

    @invariant()
    def everything_stored_comes_back(self):
        if not self.changed:
            return
        self.changed = False
        checked = self.repo.fsck(full=True, jobs=1)
        dangling = {label for label, (pairs, _) in self.head.recipes.items() if not self._known(pairs)}
        assert {finding.what for finding in checked.findings} == dangling
        assert checked.ok == (not dangling)
        self._check_tree("HEAD", self.head)

    def teardown(self):
        """A new repository that saw only every other task gives the same digest of them."""
        chosen = self.head.order[::2]
        fresh = self.world.new()
        for name in chosen:
            fresh.add(self.world.path(self.head.tasks[name].number), name, codec="raw", jobs=1)
        if chosen:
            fresh.commit("all at once")
        assert self._digest(self.repo, tasks=chosen) == self._digest(fresh)

    # Helpers

    def _moved(self, tree):
        self.history.append(tree)
        self.changed = True

    def _git(self, *arguments):
        command = ["git", "-C", str(self.repo.git.work_tree), *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def _known(self, pairs):
        return all(name in self.head.tasks for name, _ in pairs)

    def _draw_pairs(self, data):
        """Draw tasks with coefficients, seldom one that is only staged."""
        held = sorted({*self.head.tasks, *self.staged.tasks})
        task = st.tuples(st.sampled_from(held), st.sampled_from(COEFFICIENTS))
        return data.draw(st.lists(task, min_size=1, max_size=len(held), unique_by=lambda pair: pair[0]))

    @contextmanager
    def _naming(self, pairs):
        """Expect a refusal of what names tasks that are not committed; give whether all are."""
        if self._known(pairs):
            yield True
            return
        waiting = any(name in self.staged.tasks and name not in self.head.tasks for name, _ in pairs)
        with pytest.raises(NotFound, match="is staged but not committed" if waiting else "no task '"):
            yield False

    def _digest(self, repo, **request):
        output = self.world.root / "output"
        digest = repo.checkout(**request, output=output, jobs=1).digest
        shutil.rmtree(output)
        self.deleted |= repo is self.repo
        return digest

    def _tensors(self, task):
        return self.world.checkpoints[task.number]

    def _check_tree(self, rev, tree):
        """Every task comes back bit for bit, and all of them in the default order as their sum."""
        for name, task in tree.tasks.items():
            found = dict(self.repo.materialize([name], rev=rev, jobs=1))
            assert found.keys() == self.world.base.keys()
            assert all(same(found[tensor], wanted) for tensor, wanted in self._tensors(task).items())
        found = dict(self.repo.materialize(rev=rev, method="task_arithmetic", jobs=1))
        self._check_sum(found, [(name, 1.0) for name in tree.order], "task_arithmetic", tree)

    def _check_sum(self, found, pairs, method, tree):
        total = math.fsum(weight for _, weight in pairs)
        tasks = [(self._tensors(tree.tasks[name]), w / total if method == "linear" else w) for name, w in pairs]
        alone = [weight for _, weight in pairs] == [1.0]
        for name, base in self.world.base.items():
            assert same(found[name], tasks[0][0][name] if alone else add_up(base, [(t[name], w) for t, w in tasks]))


def add_up(base, tensors):
    """The sum in float64 of the base and of every weighted task vector that is not zero, cast once."""
    start, total = base.double().numpy(), None
    for tensor, weight in tensors:
        if not same(tensor, base):
            vector = (tensor.double().numpy() - start) * weight
            total = vector if total is None else total + vector
    return base if total is None else torch.from_numpy(np.asarray(start + total)).to(base.dtype)


def distance(model, base):
    return math.sqrt(sum(float((model[name].double() - base[name].double()).square().sum()) for name in base))


def test_any_commands_in_any_order(world):
    run_state_machine_as_test(lambda: Commands(world), settings=world.profile)
