"""Use cases: one file each, joining the rooms below. Loaded on first use, so that commands start quickly."""

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from weightvc.repo import (
        add,
        api,
        build,
        checkout,
        commit,
        device,
        diff,
        du,
        estimate,
        evaluate,
        evaluator,
        fetch,
        fsck,
        gc,
        init,
        log,
        push,
        recipe,
        remotes,
        repack,
        repair,
        repository,
        resolve,
        revert,
        rules,
        show,
        snapshot,
        state,
        status,
        unstage,
        verify,
    )

__all__ = [
    "add",
    "api",
    "build",
    "checkout",
    "commit",
    "device",
    "diff",
    "du",
    "estimate",
    "evaluate",
    "evaluator",
    "fetch",
    "fsck",
    "gc",
    "init",
    "log",
    "push",
    "recipe",
    "remotes",
    "repack",
    "repair",
    "repository",
    "resolve",
    "revert",
    "rules",
    "show",
    "snapshot",
    "state",
    "status",
    "unstage",
    "verify",
]


def __getattr__(name: str) -> ModuleType:
    if name not in __all__:
        raise AttributeError(name)
    return importlib.import_module(f"weightvc.repo.{name}")
