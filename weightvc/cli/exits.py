"""From kinds of errors to exit codes.

| code | meaning |
|------|---------|
| 0    | done |
| 1    | a check found something |
| 2    | usage |
| 3    | the request cannot be carried out |
| 4    | integrity: corrupt or missing data |
| 5    | a remote cannot be reached, or sends something else |
| 70   | a bug |
| 130  | interrupted |
| 141  | broken pipe |
"""

from weightvc.util.errors import Integrity, Interrupted, RemoteError, RequestError, UsageError, WeightvcError

FOUND = 1
USAGE = 2
REQUEST = 3
INTEGRITY = 4
REMOTE = 5
BUG = 70
INTERRUPTED = 130
BROKEN_PIPE = 141


def code(error: WeightvcError) -> int:
    """Return the exit code of an error."""
    match error:
        case UsageError():
            return USAGE
        case Integrity():
            return INTEGRITY
        case RemoteError():
            return REMOTE
        case Interrupted():
            return INTERRUPTED
        case RequestError():
            return REQUEST
    return BUG


def kind(error: WeightvcError) -> str:
    """Return the error's kind as ``--json`` names it."""
    return type(error).__name__
