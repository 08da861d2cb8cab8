"""The merge methods by name, as plain data: usage errors and completion load no tensors.

Other packages add methods under the entry-point group ``weightvc.merge_methods``. Such an entry is a frozen dataclass
that implements :class:`weightvc.merge.method.Fold` or :class:`weightvc.merge.joint.Joint`. Each of its fields has a
default, whose type is the parameter's, and may say what it means in ``metadata["meaning"]``; a bad value raises
``ValueError``.
"""

import dataclasses
import importlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from weightvc.merge.params import MAX_PATTERNS, TYPES, Param, choice, is_norm
from weightvc.objects.recipe import Scalar
from weightvc.util import plugins
from weightvc.util.errors import NotFound, UsageError
from weightvc.util.text import listed, meant, printable

if TYPE_CHECKING:
    from weightvc.merge.joint import Joint
    from weightvc.merge.method import Fold

GROUP = "weightvc.merge_methods"
"""Entry-point group of methods from other packages."""

OTHER = (
    "*embed*,emb,emb.*,*[._]emb,*[._]emb.*,*wte*,*wpe*,*positional*,position_*,*[._]position_*,*lm_head*,shared.*,*.shared.*,"
    "*relative_attention_bias.*,*predictions.decoder.*,*vocab_projector.*,*lm_loss.*,proj_out.weight"
)
"""Names of token and position tables, and of output layers that are commonly tied to them.

The published code projects the weights of ``nn.Linear`` modules only; a checkpoint has just names and shapes.
"""


@dataclass(frozen=True, slots=True)
class MethodInfo:
    """A row of the table.

    Attributes:
        name: As in ``--method NAME``.
        summary: What the method does, in one line.
        reference: The paper that it comes from.
        params: Its parameters.
        target: ``module:class`` of its implementation, imported when first used.
        experimental: Whether its results may still change between versions.
        across: How far apart two environments may be, as (most tasks, relative difference of merged task vectors).
    """

    name: str
    summary: str
    reference: str
    params: tuple[Param, ...]
    target: str
    experimental: bool = False
    across: tuple[tuple[float, float], ...] = ((math.inf, 1e-12),)


def _within_one(value: float) -> bool:
    return 0.0 <= value <= 1.0


_MIXED = 1e-5
_SPECTRAL = ((math.inf, 1e-9),)
_OPCM = "arXiv 2501.09522 (NeurIPS 2025)"
_ALPHA = Param(
    name="alpha",
    type=float,
    default=0.5,
    meaning="share of the accumulated singular values, by sum, whose directions later tasks leave alone",
    range="a number from 0 up to but not including 1",
    accepts=lambda value: 0.0 <= value < 1.0,
)
_NORM = Param(
    name="norm",
    type=str,
    default="mean",
    meaning="norm of the merged task vector: the tasks' mean, the root of the sum of their squares, or times the mean",
    range="mean, rss, or a number above 0",
    accepts=is_norm,
    numeric=True,
)
_OTHER = Param(
    name="other",
    type=str,
    default=OTHER,
    meaning="names of matrices that are added without projection, as shell patterns; empty for none",
    range=f"a comma-separated list of shell patterns such as '*embed*', of at most {MAX_PATTERNS} characters",
    accepts=lambda value: len(value) <= MAX_PATTERNS,
)
_PRECISION = choice(
    "precision", "float64", ("mixed",), "precision of a projection; mixed is faster, and has products in float32"
)
_DENSITY = Param(
    name="density",
    type=float,
    default=0.2,
    meaning="share of each task vector's elements that is kept",
    range="a number above 0 and up to 1",
    accepts=lambda value: 0.0 < value <= 1.0,
)
_SCALING = Param("scaling", float, 1.0, "factor for the merged task vector", "a finite number")
_DROPPING = (
    Param("density", float, 0.5, "share of each task vector's elements that is kept", _DENSITY.range, _DENSITY.accepts),
    choice("rescale", "inverse-density", ("l1", "none"), "how what is kept makes up for what is dropped"),
    Param("seed", int, 0, "number that what is dropped depends on", "a whole number"),
    Param(
        "vectors", bool, default=False, meaning="whether to drop from tensors of one dimension", range="true or false"
    ),
    _SCALING,
)
_ROWS = (
    MethodInfo(
        "opcm-s",
        "OPCM whose projection depends on subspaces only: reproducible for any number of tasks",
        _OPCM,
        (_ALPHA, dataclasses.replace(_NORM, default="1.8"), _OTHER, _PRECISION),
        "weightvc.merge.opcm:OpcmS",
    ),
    MethodInfo(
        "opcm",
        "OPCM as published: each task is projected off the leading directions of those before it",
        _OPCM,
        (_ALPHA, _NORM, _OTHER),
        "weightvc.merge.opcm:Opcm",
        across=((3, 1e-9), (5, 1e-6), (8, 1e-4)),
    ),
    MethodInfo(
        "task_arithmetic",
        "sum of the task vectors",
        "arXiv 2212.04089 (ICLR 2023)",
        (Param("scaling", float, 1.0, "factor for the whole sum", "a finite number"),),
        "weightvc.merge.task_arithmetic:TaskArithmetic",
    ),
    MethodInfo(
        "linear",
        "average of the tuned models, weighted by the coefficients",
        "arXiv 2203.05482 (ICML 2022)",
        (),
        "weightvc.merge.linear:Linear",
    ),
    MethodInfo(
        "magmax",
        "of each weight the largest change that any task made",
        "arXiv 2407.06322 (ECCV 2024)",
        (_SCALING,),
        "weightvc.merge.magmax:MagMax",
    ),
    MethodInfo(
        "ties",
        "trims each task vector, elects a sign for each weight, and joins what agrees",
        "arXiv 2306.01708 (NeurIPS 2023)",
        (
            _DENSITY,
            choice("scope", "model", ("tensor",), "what a task vector is trimmed over"),
            choice("aggregate", "mean", ("sum", "max"), "how what agrees is joined"),
            choice("election", "unweighted", ("weighted",), "whether coefficients count in the election"),
            _SCALING,
            choice("compat", "none", ("mergekit", "peft"), "whose arithmetic to follow instead of the paper's"),
        ),
        "weightvc.merge.ties:Ties",
    ),
    MethodInfo(
        "dare",
        "sum of the task vectors, of which elements are dropped at random",
        "arXiv 2311.03099 (ICML 2024)",
        _DROPPING,
        "weightvc.merge.dare:Dare",
    ),
    MethodInfo(
        "dare_ties",
        "drops elements at random, elects a sign for each weight, and sums what agrees",
        "arXiv 2311.03099 (ICML 2024)",
        _DROPPING,
        "weightvc.merge.dare:DareTies",
    ),
    MethodInfo(
        "slerp",
        "two models along the arc between them, tensor by tensor",
        "Shoemake, SIGGRAPH 1985",
        (Param("t", float, 0.5, "place on the arc", "a number from 0, the first task, to 1, the second", _within_one),),
        "weightvc.merge.slerp:Slerp",
    ),
    MethodInfo(
        "model_stock",
        "average of the task vectors, shrunk by how little they agree",
        "arXiv 2403.19522 (ECCV 2024)",
        (),
        "weightvc.merge.model_stock:ModelStock",
    ),
    MethodInfo(
        "tsv-m",
        "leading singular vectors of every task, made orthogonal to those of the others",
        "arXiv 2412.00081 (CVPR 2025)",
        (_SCALING,),
        "weightvc.merge.tsv_m:TsvM",
        across=_SPECTRAL,
    ),
    MethodInfo(
        "mdm-oc",
        "task vectors made orthogonal one after the other, over the whole model",
        "arXiv 2507.20997, in weightvc's own definition",
        (choice("unmerge", "replay", ("subtract",), "what a coefficient of 0 does; subtract is approximate"),),
        "weightvc.merge.mdm_oc:MdmOc",
        experimental=True,
        across=_SPECTRAL,
    ),
)

METHODS: Mapping[str, MethodInfo] = {row.name: row for row in _ROWS}
"""The built-in methods, the default one first."""


def describe(name: str) -> MethodInfo:
    """Return the row of a built-in or installed method.

    Raises:
        UsageError: there is none of that name, or an installed one is not of the form that this module describes.
    """
    return METHODS[name] if name in METHODS else _describe(name, _kind(name))


def create(name: str, params: Mapping[str, Scalar]) -> "Fold | Joint":
    """Return the method ``name`` with ``params``, which may spell values as text; others are at their defaults.

    Raises:
        UsageError: an unknown method or parameter, or a value out of range.
    """
    values = check(name, params)
    try:
        return cast("Fold | Joint", _kind(name)(**values))
    except UsageError:
        raise
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from error


def check(name: str, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Return every parameter of the method ``name`` with its value, loading no tensors; raises as :func:`create`."""
    known = {param.name: param for param in describe(name).params}
    if unknown := sorted(params.keys() - known.keys()):
        takes = f"it takes {listed(list(known))}" if known else "it takes none"
        raise UsageError(f"method {name} has no parameter {listed(unknown)}", takes)
    return {key: _value(name, param, params.get(key, param.default)) for key, param in known.items()}


def tolerance(name: str, params: Mapping[str, Scalar], tasks: int) -> float:
    """Return how far the merged task vectors of two environments may be apart, relative to their norm.

    0 where nothing is promised but the bytes of equal environments: an installed method, or too many tasks.
    """
    if params.get("precision") == "mixed":
        return _MIXED
    return next((apart for most, apart in describe(name).across if tasks <= most), 0.0)


def _value(method: str, param: Param, given: Scalar) -> Scalar:
    try:
        return param.parse(given)
    except ValueError:
        shown = printable(str(given))[:60]
        raise UsageError(f"{method}: {param.name} cannot be {shown}", f"{param.name} is {param.range}") from None


def _kind(name: str) -> Any:
    """Return the class of a built-in or installed method."""
    if name in METHODS:
        module, _, attribute = METHODS[name].target.partition(":")
        return getattr(importlib.import_module(module), attribute)
    try:
        return plugins.load(GROUP, name)
    except NotFound:
        shown = printable(name)[:80]
        hint = meant(name, METHODS, f"the methods are {listed(list(METHODS), len(METHODS))}")
        raise UsageError(f"there is no merge method {shown!r}", hint) from None


def _describe(name: str, kind: Any) -> MethodInfo:
    fields = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else None
    if fields is None or any(type(field.default) not in TYPES for field in fields):
        raise UsageError(
            f"the installed merge method {name!r} is not a dataclass whose fields all have scalar defaults",
            "tell its author, or uninstall it",
        )
    params = tuple(_param(field.name, field.default, field.metadata.get("meaning", "")) for field in fields)
    summary = (kind.__doc__ or name).strip().splitlines()[0]
    target = f"{kind.__module__}:{kind.__qualname__}"
    return MethodInfo(name, summary, "", params, target, experimental=True, across=())


def _param(name: str, default: Any, meaning: str) -> Param:
    return Param(name, type(default), default, meaning, f"of type {type(default).__name__}")
