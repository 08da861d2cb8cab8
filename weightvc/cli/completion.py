"""`wvc completion`."""

from dataclasses import dataclass
from importlib import import_module

import click

from weightvc.cli.context import Context


@dataclass(frozen=True)
class _Script:
    shell: str
    script: str


_WHERE = """\b
bash: add to ~/.bashrc:                  eval "$(wvc completion bash)"
zsh:  add to ~/.zshrc:                   eval "$(wvc completion zsh)"
fish: write to ~/.config/fish/completions/wvc.fish
"""


@click.command("completion", epilog=_WHERE)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    kind = import_module("click.shell_completion").get_completion_class(shell)
    script = kind(ctx.find_root().command, {}, "wvc", "_WVC_COMPLETE").source()
    ctx.ensure_object(Context).emit("completion", _Script(shell, script), script.splitlines())
