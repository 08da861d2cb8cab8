"""Ordinary git as the history of tracked files: reading commits and making them durably."""

import os

# GitPython looks for git while it is imported and raises if there is none; we say so ourselves, on first use.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
