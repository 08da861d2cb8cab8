"""Adding with an evaluator: what it is run on, what is kept of its scores, and when a lossy codec is not taken."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

SCORER = """
import json, sys
from pathlib import Path
from safetensors.numpy import load_file

directory = Path(sys.argv[-1])
total = sum(t.astype(float).sum() for file in directory.glob("*.safetensors") for t in load_file(file).values())
print("loading", file=sys.stderr)
files = sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*"))
with open(sys.argv[1], "a") as log:
    print(json.dumps([str(directory), files]), file=log)
print("some words")
print(json.dumps({"sum": total, "half": total / 2}))
"""


def tensors():
    made = torch.Generator().manual_seed(0)
    return {"h.bias": torch.randn(40, generator=made), "h.weight": torch.randn(128, 64, generator=made)}


def tuned():
    made = torch.Generator().manual_seed(1)
    return {name: tensor + 0.05 * torch.rand(tensor.shape, generator=made) for name, tensor in tensors().items()}


def total(found):
    return sum(float(tensor.double().sum()) for tensor in found.values())


@pytest.fixture(scope="module")
def made(tmp_path_factory, models):
    root = tmp_path_factory.mktemp("evaluate")
    models.write(root / "base", tensors())
    models.write(root / "fine", tuned())
    models.write(root / "torch", tuned(), kind="bin")
    (root / "score.py").write_text(SCORER)
    return root


@pytest.fixture
def repo(made, repository):
    return repository(made / "base")


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def command(made, log):
    return f"{sys.executable} '{made / 'score.py'}' {log} {{model_dir}}"


@pytest.fixture
def declined(repo, made, refused):
    """Add the fine-tune with options that must be refused: ``declined(code, *options, says=…, hint=…)``."""
    return lambda code, *options, **words: refused(
        repo, code, "add", made / "fine", "--task", "fine", *options, **words
    )


def runs(log):
    """Return each directory that was scored, and its files."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_the_base_the_fine_tune_and_what_comes_back_are_scored(repo, made, models, command, log):
    out = log.with_name("out")
    added = repo.put("fine", made / "fine", "--codec", "int4", "--eval", command)
    (base, base_files), (fine, fine_files), (back, back_files) = runs(log)
    assert fine == str(made / "fine")
    assert base_files == fine_files == back_files == sorted([*models.contents(made / "fine"), "1_Pooling"])
    assert base != back
    assert list((repo.path / ".git/wvc/tmp").iterdir()) == []

    repo.wvc("checkout", "--tasks", "fine", "-o", out)
    wanted = {"base": total(tensors()), "tuned": total(tuned()), "stored": total(models.read(out))}
    assert wanted["stored"] != wanted["tuned"]
    kept = (wanted["stored"] - wanted["base"]) / (wanted["tuned"] - wanted["base"])
    assert added["scores"]["sum"] == {key: pytest.approx(n, abs=1e-9) for key, n in wanted.items()} | {
        "kept": pytest.approx(kept)
    }
    assert (added["scored"], added["fallback"]) == (["base", "tuned", "stored"], None)

    half, whole = repo.manifest("fine")["scores"]
    assert (half["name"], whole["name"]) == ("half", "sum")
    assert {key: whole[key] for key in wanted} == {key: added["scores"]["sum"][key] for key in wanted}
    assert "score.py" not in (repo.path / ".wvc/tasks/fine.json").read_text()

    shown = repo.json("show", "fine")
    assert shown["scores"] == added["scores"]
    said = (
        f"sum: base {wanted['base']:g}, tuned {wanted['tuned']:g}, stored {wanted['stored']:g}: {100 * kept:.1f} % of"
    )
    assert f"score    {said} the gain kept\n" in repo.wvc("show", "fine")
    assert f"; {said}" in repo.run("checkout", "--tasks", "fine", "-o", out).err
    repo.wvc("fsck", "--full")


def test_what_comes_back_as_it_was_is_not_scored_again(repo, made, command, log):
    ran = repo.run("add", made / "fine", "--task", "fine", "--eval", command)
    assert len(runs(log)) == 2
    assert "its tensors come back as they were added, and were not scored again\n" in ran.out
    added = repo.json("add", made / "fine", "--task", "fine", "--eval", command)
    assert added["scored"] == ["base", "tuned"]
    assert added["scores"]["sum"]["stored"] == added["scores"]["sum"]["tuned"]
    assert added["scores"]["sum"]["kept"] == 1.0
    assert added["change"] == "none"


def test_nothing_of_the_evaluators_is_printed(repo, made, command):
    for options in (("--json",), ()):
        ran = repo.run(*options, "add", made / "fine", "--task", "fine", "--eval", command)
        assert ran.code == 0
        assert "loading" not in ran.out + ran.err
        assert "some words" not in ran.out + ran.err
    assert ran.out.startswith("nothing changed")


def staged(repo, name):
    """The objects of a staged task."""
    lines = json.loads(repo.staged(f"tasks/{name}.json"))
    return {line["object"] for kind in ("tensors", "files", "headers") for line in lines[kind] if "object" in line}


def test_a_drop_that_is_too_large_is_not_taken(repo, made, command, log, models):
    objects = repo.objects()
    ran = repo.run("add", made / "fine", "--task", "fine", "--codec", "int2", "--eval", command, "--max-drop", "0")
    added = repo.json(
        "add", made / "fine", "--task", "fine", "--codec", "int2", "--eval", command, "--max-drop", "1e-9"
    )
    tried = added["fallback"]
    assert (tried["codec"], tried["max_drop"], tried["dropped"]) == ("int2", 1e-9, ["half", "sum"])
    assert tried["scores"]["sum"]["stored"] < added["scores"]["sum"]["stored"] == added["scores"]["sum"]["tuned"]
    assert tried["stored_bytes"] < added["stored_bytes"]
    assert (added["codec"], added["lossy"], added["scored"]) == ("intdelta", None, ["base", "tuned", "stored"])
    before, after = tried["scores"]["sum"]["tuned"], tried["scores"]["sum"]["stored"]
    assert f"not stored by int2: sum dropped from {before:g} to {after:g}, by more than 0\n" in ran.out
    assert "stored losslessly by intdelta in its place\n" in ran.out
    assert len(runs(log)) == 6
    assert repo.objects() == {*objects, *staged(repo, "fine")}
    repo.json("commit", "-m", "Add it")
    repo.wvc("checkout", "--tasks", "fine", "-o", log.with_name("out"))
    models.assert_same(models.read(log.with_name("out")), tuned())
    assert "lossy" not in repo.wvc("show", "fine")


def test_a_drop_that_is_small_enough_is_taken(repo, made, command):
    added = repo.json("add", made / "fine", "--task", "fine", "--codec", "int4", "--eval", command, "--max-drop", "99")
    assert (added["codec"], added["fallback"]) == ("int4", None)
    assert added["lossy"]["tensors"] == 1


def test_drops_are_compared_by_their_digits():
    from weightvc.objects.scores import Score
    from weightvc.repo.evaluator import Evaluation

    some = [Score("a", 0.5, 0.93, 0.92), Score("b", 0.5, 0.93, 0.9199), Score("c", 0.5, 0.93, 0.94)]
    assert Evaluation("x", 0.01).dropped(some) == ("b",)
    assert Evaluation("x", 0).dropped(some) == ("a", "b")
    assert Evaluation("x").dropped(some) == ()


def test_a_dry_run_runs_nothing(repo, made, command, log):
    before = repo.everything()
    for codec, said, words in (
        ("int4", ["base", "tuned", "stored"], "the base, the fine-tune, what comes back"),
        ("raw", ["base", "tuned"], "the base, the fine-tune"),
    ):
        asked = "add", made / "fine", "--task", "fine", "--codec", codec, "--eval", command, "-n"
        plan = repo.json(*asked)
        assert (plan["scored"], plan["scores"], plan["fallback"]) == (said, {}, None)
        assert repo.wvc(*asked).endswith(f"would run the evaluator on {words}, in up to 32.2 KiB of scratch space\n")
        assert plan["scratch_bytes"] == plan["bytes"] == 4 * (40 + 128 * 64)
        without = repo.json("add", made / "fine", "--task", "fine", "--codec", codec, "-n")
        assert (without["scored"], without["peak_bytes"] < plan["peak_bytes"]) == ([], True)
    assert runs(log) == []
    assert repo.everything() == before


@pytest.mark.parametrize("name", ["fine/model.safetensors", "torch/pytorch_model.bin"])
def test_a_single_file_is_scored_as_a_checkout_would_hold_it(repo, made, command, log, name):
    added = repo.put("fine", made / name, "--codec", "int4", "--eval", command)
    _, (fine, files), (_, back) = runs(log)
    assert files == back == ["model.safetensors"]
    assert not fine.startswith(str(made))
    assert added["scores"]["sum"]["tuned"] == pytest.approx(total(tuned()), abs=1e-9)
    assert list((repo.path / ".git/wvc/tmp").iterdir()) == []


def test_a_directory_of_pytorch_files_is_scored_as_it_is(repo, made, command, log):
    repo.put("fine", made / "torch", "--codec", "int4", "--eval", command)
    _, (fine, files), (_, back) = runs(log)
    assert fine == str(made / "torch")
    assert set(files) ^ set(back) == {"pytorch_model.bin", "model.safetensors"}


def test_scores_stay_with_what_they_are_of(repo, made, command):
    options = "--codec", "int4"
    repo.json("add", made / "fine", "--task", "fine", *options, "--eval", command)
    assert repo.json("add", made / "fine", "--task", "fine", *options)["change"] == "none"
    repo.json("commit", "-m", "Add it")
    scores = repo.manifest("fine")["scores"]
    again = repo.json("add", made / "fine", "--task", "fine", *options)
    assert (again["change"], again["staged"], again["scored"]) == ("none", False, [])
    assert again["scores"]["sum"]["tuned"] == scores[1]["tuned"]
    other = repo.json("add", made / "fine", "--task", "fine")
    assert (other["change"], other["scores"]) == ("version", {})
    repo.wvc("unstage", "fine")
    repo.wvc("repack", "--codec", "raw")
    repo.json("commit", "-m", "Raw")
    assert repo.manifest("fine")["scores"] == scores


def test_new_scores_alone_are_staged(repo, made, command):
    repo.put("fine", made / "fine")
    done = repo.run("add", made / "fine", "--task", "fine", "--eval", command)
    assert "staged task fine with the same weights but other files, lineage, codec or scores" in done.out


def test_a_number_alone_is_called_score(repo, made):
    added = repo.json("add", made / "fine", "--task", "fine", "--eval", "bash -c 'echo 3'")
    assert added["scores"] == {"score": {"base": 3.0, "tuned": 3.0, "stored": 3.0, "kept": None}}


@pytest.mark.parametrize(
    "printed", ['{"a": 1}', '{"a": 1}\n\n', 'words\n{"a": 1}', '{\n"a":\n1\n}', '{"a": -0.0, "b": 2e3}', "7"]
)
def test_answers_that_are_scores(tmp_path, printed):
    from weightvc.repo.evaluator import Evaluator

    (tmp_path / "answer").write_text(printed)
    found = Evaluator("cat {model_dir}/answer").score(tmp_path, "it")
    assert found in ({"a": 1.0}, {"a": 0.0, "b": 2000.0}, {"score": 7.0})
    assert not any(str(number).startswith("-") for number in found.values())


def test_the_last_line_of_much_is_found(tmp_path):
    from weightvc.repo.evaluator import Evaluator

    (tmp_path / "answer").write_text("x" * 3_000_000 + "\n0.5\n")
    assert Evaluator("cat {model_dir}/answer").score(tmp_path, "it") == {"score": 0.5}
    (tmp_path / "answer").write_text("{\n" + "x" * 3_000_000 + "\n}\n")
    with pytest.raises(ValueError, match="is no number and no JSON object"):
        Evaluator("cat {model_dir}/answer").score(tmp_path, "it")


ANSWERS = {
    "": "is empty",
    "  \n": "is empty",
    "good": "is no number and no JSON object: its last line: not valid JSON",
    "NaN": "NaN is not JSON",
    "-Infinity": "-Infinity is not JSON",
    "1e999": "a number beyond double precision",
    "true": "is no number and no JSON object",
    "[0.5]": "is no number and no JSON object",
    '"0.5"': "is no number and no JSON object",
    "null": "is no number and no JSON object",
    "{}": "has 0 scores, not 1 to 1000",
    json.dumps({str(n): n for n in range(1001)}): "has 1001 scores, not 1 to 1000",
    '{"a": "0.5", "b": 1}': "is no number: a",
    '{"a": true}': "is no number: a",
    '{"a": {"b": 1}}': "is no number: a",
    '{"a": 1, "a": 2}': "duplicate name 'a'",
    '{"": 1}': "has names that no score can have: ''",
    '{"a\\nb": 1}': "has names that no score can have: 'a\\nb'",
    json.dumps({"x" * 101: 1}): "has names that no score can have: 'xxx",
}


@pytest.mark.parametrize(("printed", "words"), ANSWERS.items(), ids=range(len(ANSWERS)))
def test_other_answers_are_refused(declined, tmp_path, printed, words):
    (tmp_path / "answer").write_text(printed)
    command = f"bash -c 'echo why >&2; cat {tmp_path}/answer' x"
    ran = declined(3, "--eval", command, says=words, hint="run it by hand on the directory of the fine-tune")
    assert "the evaluator's answer for the base " in ran.err
    assert "it said:\nwhy\n" in ran.err


@pytest.mark.parametrize(
    ("command", "says", "hint"),
    [
        ("false", "the evaluator failed with exit code 1 on the base; it said nothing on standard err", "run it by"),
        ("bash -c 'echo oops >&2; exit 7'", "failed with exit code 7 on the base; it said:\noops\n", "run it by hand"),
        ("bash -c 'kill -9 $$'", "was ended by signal 9 on the base", "run it by hand"),
        ("bash -c 'seq 99 >&2; exit 1'", "it said:\n90\n91\n92\n93\n94\n95\n96\n97\n98\n99\n", "run it by hand"),
        ("/no/such {model_dir}", "the evaluator '/no/such' cannot be run: No such file", "give a program that is on"),
        ("/etc/passwd", "the evaluator '/etc/passwd' cannot be run: Permission denied", "give a program that is on"),
    ],
)
def test_what_cannot_be_run_is_refused(declined, command, says, hint):
    declined(3, "--eval", command, says=says, hint=hint)


def test_what_fails_on_the_fine_tune_is_refused(declined):
    script = 'case "$0" in *fine) exit 5;; *) echo 1;; esac'
    declined(3, "--eval", f"bash -c '{script}'", says="failed with exit code 5 on the fine-tune")


def test_other_names_for_other_models_are_refused(declined):
    script = 'case "$0" in *fine) echo 1;; *) echo {\\"a\\": 1};; esac'
    says, hint = "the evaluator gave a for the base, but score for the fine-tune", "have it print the same names"
    declined(3, "--eval", f"bash -c '{script}'", says=says, hint=hint)


def test_what_fails_on_what_comes_back_leaves_nothing(declined, tmp_path):
    script = f"echo x >> {tmp_path}/n; test $(wc -l < {tmp_path}/n) -lt 3 && echo 1"
    says = "failed with exit code 1 on what comes back"
    declined(3, "--codec", "int4", "--eval", f"bash -c '{script}'", says=says)


@pytest.mark.parametrize(
    ("options", "says", "hint"),
    [
        (["--eval", ""], "--eval names no command", "write it as in a shell"),
        (["--eval", "a 'b"], "--eval cannot be split into words: No closing quotation", "write it as in a shell"),
        (["--max-drop", "0.1"], "--max-drop needs scores", "pass --eval CMD, too"),
        (["--eval", "x", "--max-drop", "-1"], "--max-drop -1.0 is no number from 0 on", "write for example --max-drop"),
        (["--eval", "x", "--max-drop", "nan"], "--max-drop nan is no number from 0 on", "write for example"),
        (["--eval", "x", "--max-drop", "inf"], "--max-drop inf is no number from 0 on", "write for example"),
        (["--eval", "x", "--estimate"], "--estimate stores nothing that could be scored", "leave --estimate or --eval"),
    ],
)
def test_usage(declined, options, says, hint):
    declined(2, *options, says=says, hint=hint)


def test_a_nul_byte_is_no_command():
    from weightvc.repo.evaluator import Evaluator

    with pytest.raises(ValueError, match="--eval holds a NUL byte"):
        Evaluator("a\0b")


def test_the_library_does_the_same(repo, made, command):
    added = repo.api().add(made / "fine", "fine", codec="int2", evaluator=command, max_drop=0.0)
    assert (added.fallback.codec, added.codec, sorted(added.scores)) == ("int2", "intdelta", ["half", "sum"])
    with pytest.raises(ValueError, match="--max-drop needs scores"):
        repo.api().add(made / "fine", "fine", max_drop=0.0)


SLOW = "bash -c 'sleep 300 & echo $! > {0}/pid; wait'"
DEAF = "bash -c 'trap \"\" TERM; echo $$ > {0}/pid; while true; do sleep 0.1; done'"


@pytest.mark.parametrize("command", [SLOW, DEAF], ids=["with a child", "deaf"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_evaluator_and_what_it_started(repo, made, tmp_path, command, number):
    code = "from weightvc.repo import evaluator; from weightvc.cli.main import run; evaluator.GRACE = 0.3; run()"
    asked = ["-C", repo.path, "add", made / "fine", "--task", "fine", "--eval", command.format(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *asked], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509 -- no threads
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "wvc: interrupted\n")
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 10
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)
    assert list((repo.path / ".git/wvc/tmp").iterdir()) == []
    assert repo.json("status")["staged"] == {}


def test_ctrl_c_while_the_evaluator_starts_ends_it_too(tmp_path, monkeypatch):
    from weightvc.repo import evaluator

    started = []

    class Slow(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)
            started.append("whole")

    monkeypatch.setattr(evaluator.subprocess, "Popen", Slow)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            evaluator.Evaluator("bash -c 'sleep 300'").score(tmp_path, "it")
    finally:
        signal.signal(signal.SIGINT, before)
    pid, whole = started
    assert (whole, alive(pid)) == ("whole", False)


def test_it_runs_in_any_thread(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    from weightvc.repo.evaluator import Evaluator

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(Evaluator("bash -c 'echo 1'").score, tmp_path, "it").result() == {"score": 1.0}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_task_that_was_committed_meanwhile_keeps_its_identity(repo, made, tmp_path):
    wvc = f"{sys.executable} -m weightvc -C {repo.path} -q"
    (tmp_path / "meanwhile").write_text(f"{wvc} add {made / 'base'} --task fine && {wvc} commit -m Inner\n")
    command = f"bash -c 'test -e {tmp_path}/done || (. {tmp_path}/meanwhile; touch {tmp_path}/done) >&2; echo 1'"

    done = repo.json("add", made / "fine", "--task", "fine", "--eval", command)

    inner = repo.manifest("fine")
    assert done["change"] == "version"
    repo.json("commit", "-m", "Outer")
    assert [repo.manifest("fine")[key] for key in ("uuid", "added")] == [inner[key] for key in ("uuid", "added")]


def test_an_evaluator_that_cuts_the_weights_off_is_refused(repo, models, tmp_path, refused):
    source = models.write(tmp_path / "source", tuned())
    script = tmp_path / "cut.sh"
    script.write_text('case "$1" in */wvc/tmp/*) ;; *) : > "$1/model.safetensors";; esac; echo 1\n')

    refused(
        repo, 3, "add", source, "--task", "fine", "--codec", "int4", "--eval", f"bash {script}",
        says="changed while it was read; nothing was staged",
    )  # fmt: skip


def test_an_answer_that_is_none_is_shown(repo, made, refused):
    refused(repo, 3, "add", made / "fine", "--task", "fine", "--eval", "bash -c 'echo about 0.9'", says=": 'about 0.9'")
