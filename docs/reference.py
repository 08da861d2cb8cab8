"""Writes docs/cli.md from the command line's own help: `make docs`. A test fails when the page is out of date."""

import importlib
import sys
from pathlib import Path

import click

from weightvc.cli.context import Context
from weightvc.cli.group import COMMANDS, cli

PAGE = Path(__file__).with_name("cli.md")

HEAD = """# Command reference

Written by `make docs` from `wvc COMMAND --help`. Every command takes `--json`, which prints one document with a
versioned `schema` key on standard output; everything else goes to standard error. `-C DIR`, `-q`, `-v` and
`--no-pager` may stand before or after the command, too.

"""


def page() -> str:
    """Return the whole page."""
    exits = str(importlib.import_module("weightvc.cli.exits").__doc__).partition("\n\n")[2]
    parts = [HEAD, "## Exit codes\n\n", exits, "\n"]
    with click.Context(
        cli, info_name="wvc", obj=Context(), terminal_width=100, help_option_names=["-h", "--help"]
    ) as root:
        parts.append(f"## `wvc`\n\n```text\n{cli.get_help(root)}\n```\n\n")
        for name in COMMANDS:
            command = cli.get_command(root, name)
            if command is not None:
                parts += _section(root, name, command)
    return "".join(parts)


def _section(parent: click.Context, name: str, command: click.Command) -> list[str]:
    with click.Context(command, info_name=name, parent=parent, terminal_width=100) as ctx:
        parts = [f"## `{ctx.command_path}`\n\n```text\n{command.get_help(ctx)}\n```\n\n"]
        for sub in command.list_commands(ctx) if isinstance(command, click.Group) else []:
            child = command.get_command(ctx, sub)  # type: ignore[attr-defined]
            parts += _section(ctx, sub, child)
    return parts


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.stdout.write(f"wrote {PAGE}\n")
