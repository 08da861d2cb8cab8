"""The group of all commands: lazy, with an explicit table."""

import importlib
import os
from typing import Any

import click

from weightvc.cli import options
from weightvc.cli.context import Context
from weightvc.util.errors import UsageError

SECTIONS: dict[str, dict[str, str]] = {
    "Start": {"init": "Make a repository over a base checkpoint."},
    "Record": {
        "add": "Store a fine-tune as a task, for the next commit.",
        "status": "Show tasks, recipes and what is staged.",
        "commit": "Record what is staged as a git commit.",
        "unstage": "Take back what is staged.",
        "log": "Show the commits that changed tasks.",
        "show": "Show a task or a revision.",
        "diff": "Compare two models as task vectors.",
    },
    "Combine": {
        "checkout": "Build a model from tasks.",
        "recipe": "Keep compositions of tasks under a name.",
    },
    "Remove": {"revert": "Take a task out and rebuild what contained it."},
    "Share": {
        "remote": "Keep the addresses of stores of objects.",
        "push": "Send objects and the branch to a remote.",
        "fetch": "Fetch branches and objects from a remote.",
    },
    "Maintain": {
        "fsck": "Check that all stored data is here and whole.",
        "verify": "Compare a checkout with its lock.",
        "gc": "Delete objects that nothing refers to.",
        "du": "Show what each task takes in the store.",
        "repack": "Store tasks in another encoding, the same bytes.",
        "completion": "Print the shell completion script.",
        "env": "Print versions that matter in a report.",
    },
}
"""Every command with its summary, so that help and completion import no command."""

COMMANDS = {name: summary for section in SECTIONS.values() for name, summary in section.items()}


_OBJECTS = "then `wvc remote add NAME URL` and `wvc fetch`"
_TAKE_OUT = "take out a task with `wvc revert TASK`, a recipe with `wvc recipe rm NAME`"
_TAKE_BACK = "take back what is staged with `wvc unstage NAME`; undo commits and edits with git itself"

ELSEWHERE = {
    "merge": "merge tasks with `wvc checkout --tasks a,b`; merge branches with `git merge`",
    **dict.fromkeys(("rm", "remove", "delete"), _TAKE_OUT),
    **dict.fromkeys(("reset", "restore"), _TAKE_BACK),
    "clone": f"use `git clone`, {_OBJECTS}",
    "pull": "use `wvc fetch`, then `git merge`",
    **{name: f"branches are git's own: use `git {name}`" for name in ("branch", "switch")},
}
"""What to use for commands that people know from git and that there are not here."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command ``cmd_name``, given the options that all share."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"weightvc.cli.{cmd_name}").command
        for leaf in command.commands.values() if isinstance(command, click.Group) else [command]:
            if all(param.name != "json" for param in leaf.params):
                leaf.params += _shared(hidden=True)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or refuse with what to use instead or those of like names."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            if error.command_name in ELSEWHERE:
                raise UsageError(f"No such command '{error.command_name}'.", ELSEWHERE[error.command_name]) from None
            raise click.exceptions.NoSuchCommand(error.command_name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table."""
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl(list(commands.items()))

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Complete command names with the table's summaries, importing none of them."""
        completion = importlib.import_module("click.shell_completion")
        found = [completion.CompletionItem(n, help=s) for n, s in COMMANDS.items() if n.startswith(incomplete)]
        return found + super(click.Group, self).shell_complete(ctx, incomplete)


def _shared(*, hidden: bool) -> list[click.Option]:
    """Return the options that may stand before a command and, most of them ``hidden`` from its help, after it."""
    flags = (
        (["--json"], False, False, "Print one JSON document on standard output."),
        (["-q", "--quiet"], False, hidden, "Print what was asked for, warnings and errors only."),
        (["-v", "--verbose"], True, hidden, "Print more: notes, names in full; tracebacks with -vv."),
        (["--no-pager"], False, hidden, "Never page long output."),
    )
    start = click.Option(
        ["-C", "start"], metavar="DIR", is_eager=True, expose_value=False, callback=_enter, hidden=hidden,
        shell_complete=options.paths, help="Run as if started in DIR.",
    )  # fmt: skip
    return [start] + [
        click.Option(names, is_flag=not count, count=count, expose_value=False, callback=_set, hidden=hide, help=text)
        for names, count, hide, text in flags
    ]


def _enter(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        try:
            os.chdir(value)
        except OSError as error:
            raise click.UsageError(f"-C {value}: {error.strerror}", ctx) from None


def _set(ctx: click.Context, param: click.Parameter, value: int) -> None:
    if value:
        setattr(ctx.find_object(Context), str(param.name), value)


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(f"wvc {importlib.import_module('importlib.metadata').version('weightvc')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    epilog="All but --version may stand after the command, too: `wvc status -C DIR`.",
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Print the version."
)
def cli() -> None:
    """Git for neural-network weights: task deltas, merges that replay, removal that is proved."""


cli.params[:0] = _shared(hidden=False)
