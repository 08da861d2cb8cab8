"""The error kinds of weightvc: what happened, to what, and the next command to try.

A kind says what the caller can do about it; ``weightvc.cli.exits`` maps kinds to exit codes.
"""


class WeightvcError(Exception):
    """Base of every error that weightvc raises on purpose.

    Args:
        what: One sentence naming what happened and to which thing.
        hint: The next step, normally a command to run; empty when there is none.
    """

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


class UsageError(WeightvcError, ValueError):
    """The request is malformed: an unknown method, parameter or option value."""


class RequestError(WeightvcError):
    """The request is well formed but cannot be carried out."""


class BadInput(RequestError, ValueError):
    """A file or value from outside is not what it claims to be."""


class NotFound(RequestError, LookupError):
    """A task, revision, recipe or path that does not exist."""


class NotARepository(NotFound):
    """The directory is not inside a weightvc repository."""


class Conflict(RequestError):
    """Carrying the request out would overwrite or contradict something."""


class Unsupported(RequestError):
    """The data needs a newer weightvc."""


class RemoteError(WeightvcError):
    """A remote cannot be reached, or does not do what it is asked."""


class Interrupted(WeightvcError):
    """Stopped by the user after something had been done that stays; the hint says how to finish it."""


class Integrity(WeightvcError):
    """Stored data is not what it must be."""


class Corrupt(Integrity):
    """Stored bytes do not match their checksum, digest or format."""

    def __init__(self, what: str, hint: str = "run `wvc fsck --full` to see what is damaged") -> None:
        super().__init__(what, hint)


class Missing(Integrity):
    """A stored object is absent although something living refers to it."""
