"""`wvc remote`."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from weightvc import repo
from weightvc.cli import options
from weightvc.cli.context import Context, columns, pass_context, size
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.remotes import Remote, Tested


@dataclass(frozen=True)
class _List:
    remotes: "tuple[Remote, ...]"


@click.group("remote")
def command() -> None:
    """Keep the addresses of stores that objects are shared through.

    An address is a directory of this machine, or s3://, gs://, az://, hf:// or sftp:// and a place. Credentials and
    endpoints come from the environment. Addresses are settings of this clone, and do not travel with it.
    """


@command.command("add")
@click.argument("name")
@click.argument("url")
@options.dry_run
@pass_context
def add(ctx: Context, name: str, url: str, dry_run: bool) -> None:
    """Keep the address URL under NAME."""
    result = repo.remotes.add(ctx.repository(), name, url, dry_run=dry_run)
    done = "would add" if dry_run else "added"
    ctx.emit("remote-add", result, [f"{done} remote {result.name}: {result.url}"], done=not dry_run)


@command.command("list")
@pass_context
def list_(ctx: Context) -> None:
    """List the remotes."""
    result = _List(repo.remotes.listing(ctx.repository()))
    rows = [(remote.name, remote.url) for remote in result.remotes]
    ctx.emit("remote-list", result, columns(rows) if rows else ["none"])


@command.command("rm")
@click.argument("name")
@options.dry_run
@pass_context
def remove(ctx: Context, name: str, dry_run: bool) -> None:
    """Forget the remote NAME; the objects that it has stay there."""
    result = repo.remotes.remove(ctx.repository(), name, dry_run=dry_run)
    done = "would forget" if dry_run else "forgot"
    ctx.emit("remote-rm", result, [f"{done} remote {result.name}: {result.url}"], done=not dry_run)


@command.command("test")
@click.argument("name")
@pass_context
def test(ctx: Context, name: str) -> None:
    """Ask the remote NAME what it has of the objects that HEAD needs."""
    result = repo.remotes.test(ctx.repository(), name)
    ctx.emit("remote-test", result, _told(result))


def _told(result: "Tested") -> Iterator[str]:
    yield f"{result.url} answers"
    yield f"it has {result.present} of {counted(result.needed, 'object')} that HEAD needs, {size(result.bytes)}"
