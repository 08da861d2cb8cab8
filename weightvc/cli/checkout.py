"""`wvc checkout`."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from weightvc import repo
from weightvc.cli import options, plan, words
from weightvc.cli.context import Context, columns, duration, pass_context, size
from weightvc.merge import table
from weightvc.util.text import counted

if TYPE_CHECKING:
    from weightvc.repo.checkout import CheckedOut


def _methods() -> str:
    lines = ["\b", "Methods (--method):"]
    for info in table.METHODS.values():
        params = " ".join(f"-p {param.name}=…" for param in info.params)
        note = " (experimental)" if info.experimental else ""
        lines.append(f"  {info.name:<16} {info.summary}{note}")
        lines += [f"  {'':<16} {params}"] if params else []
    return "\n".join(lines)


@click.command("checkout", epilog=_methods())
@click.argument("rev", required=False, default="HEAD", metavar="[REV]")
@options.recipe
@options.device
@click.option("--max-shard-size", type=options.Size(), default="5GB", show_default=True, help="Bytes of a weight file.")
@click.option(
    "-o",
    "--output",
    metavar="DIR",
    shell_complete=options.paths,
    help="Where to; `model` in the work tree by default.",
)
@click.option("--force", is_flag=True, help="Replace a directory that wvc did not write.")
@options.jobs
@options.dry_run
@pass_context
def command(
    ctx: Context,
    /,
    rev: str,
    output: str | None,
    device: str,
    max_shard_size: int,
    force: bool,
    jobs: int,
    dry_run: bool,
    **request: Any,
) -> None:
    """Build a model: all tasks at REV in the order of adding, or those that are named.

    One task alone comes back bit for bit, with its other files; what was added as PyTorch files has the same tensors in
    safetensors files, and what was added lossily is as near as its codec keeps it. The directory gets a wvc.lock.json,
    from which `wvc verify` checks it and `wvc verify --replay` builds it again.
    """
    asked = wanted(rev, request)  # first: a usage error need not load torch
    where = repo.checkout.Options(
        output=None if output is None else Path(output),
        device=device,
        jobs=jobs,
        max_shard_size=max_shard_size,
        force=force,
        dry_run=dry_run,
    )
    result = repo.checkout.checkout(ctx.repository(), asked, where, ctx.progress())
    ctx.note(result.notes)
    ctx.note(result.warnings, "warning")
    ctx.emit("checkout", result, _lines(result, bool(ctx.verbose)), done=not dry_run)


def wanted(rev: str, options: dict[str, Any]) -> Any:
    """Return the request that the shared recipe options describe."""
    if options["method"] is not None:
        table.check(options["method"], options["params"])
    for rule in options["rules"] or ():
        repo.rules.checked(rule)
    names = ("tasks", "recipe_name", "method", "params", "dtype", "on_int_mismatch", "rules")
    return repo.resolve.Request(rev, *(options[name] for name in names))


def _lines(result: "CheckedOut", verbose: bool) -> Iterator[str]:
    made = words.model(
        result.recipe,
        result.method,
        result.params,
        result.dtype,
        rules=result.name_rules,
        exact=result.exact,
        lossy=result.lossy,
    )
    if result.digest is None:
        yield f"would write {counted(result.tensors, 'tensor')}, {size(result.bytes)}, to {result.output}: {made}"
        figures = (("reads", result.read_bytes), ("scratch", result.scratch_bytes), ("peak memory", result.peak_bytes))
        rows = [(what, size(nbytes)) for what, nbytes in figures]
        yield from columns([*rows, ("time", f"about {duration(result.estimated_seconds or 0)}")], right=(1,))
        yield ""
        yield from plan.each(result.plan) if verbose else plan.grouped(result.plan)
        return
    tensors = counted(result.tensors, "tensor")
    yield f"{result.output}: {made}, {tensors}, {size(result.bytes)} in {result.seconds:.1f} s"
    if verbose:
        yield f"tensors: {', '.join(f'{count} {rule}' for rule, count in result.rules.items() if count)}"
    yield f"digest {result.digest}"
