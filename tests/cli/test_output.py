"""What people read: every command's whole output, volatile parts masked."""

import re
import subprocess

import pytest

from weightvc.cli.context import duration
from weightvc.cli.group import COMMANDS, SECTIONS


def test_help_lists_every_command_with_its_summary(wvc):
    text = wvc("--help").out

    assert text.startswith("Usage: wvc [OPTIONS] COMMAND [ARGS]...\n\n  Git for neural-network weights: task deltas,")
    for section, commands in SECTIONS.items():
        assert f"\n{section}:\n" in text
        for name, summary in commands.items():
            assert f"  {name}" in text
            assert summary in text
    for option in ("-C DIR", "--json", "-q, --quiet", "-v, --verbose", "--no-pager", "--version", "-h, --help"):
        assert f"  {option} " in text
    assert wvc("-h").out == text


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(wvc, command):
    ran = wvc(command, "--help")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.startswith(f"Usage: wvc {command} ")
    assert len(ran.out.splitlines()[2]) > 10
    if command not in {"recipe", "remote"}:
        assert "  --json" in ran.out


def test_checkout_lists_its_methods(wvc):
    text = wvc("checkout", "--help").out

    assert "Methods (--method):\n    opcm-s           OPCM whose projection depends on subspaces only" in text
    assert "    task_arithmetic  sum of the task vectors\n                     -p scaling=…\n" in text


def test_init(wvc, templates, masked, tmp_path):
    ran = wvc("init", tmp_path / "new", "--base", templates.base)

    assert masked(ran.out, repo=tmp_path / "new") == (
        "REPO: base ID with 17 tensors\n SIZE stored in SIZE ( N %)\ncommit ID; now run `wvc add PATH --task NAME`\n"
    )


@pytest.mark.usefixtures("two")
def test_add_and_commit(told, templates):
    assert told("add", templates.alpha, "--task", "more") == (
        "staged task more: 2 same, 15 delta; moved 5.00 % of the base's norm\n"
        "and 6 other files of the directory, SIZE\n"
        " SIZE stored in SIZE ( N %); now run `wvc commit -m MESSAGE`\n"
    )
    assert told("commit", "-m", "More") == "commit ID: more\n"


def test_log(family, told):
    family.wvc("revert", "child", "--no-rebuild")

    assert told("log") == (
        "ID  TIME  wvc revert: take out child  -child\n"
        "ID  TIME  Save prod  +prod (recipe)\n"
        "ID  TIME  Add child  +child\n"
        "ID  TIME  Add beta  +beta\n"
        "ID  TIME  Add alpha  +alpha\n"
        "ID  TIME  wvc init --base base\n"
    )
    assert told("log", "child", "--limit", "1") == "ID  TIME  wvc revert: take out child  -child\n"


def test_the_log_of_a_new_version(told, two, templates):
    two.put("alpha", templates.beta)

    assert told("log", "--limit", "1") == "ID  TIME  Add alpha  ~alpha\n"


def test_the_graph_of_lineage(family, told, templates):
    family.put("grand", templates.base, "--derived-from", "child")

    assert told("log", "--graph") == (
        "base\n├─ alpha\n│  └─ child\n│     └─ grand\n└─ beta\n   └─ child\n      └─ grand\n"
    )
    family.wvc("revert", "alpha", "--keep-derived", "--no-rebuild")
    family.wvc("revert", "beta", "--keep-derived", "--no-rebuild")
    assert told("log", "--graph") == "base\n└─ child (from alpha, beta, removed)\n   └─ grand\n"


@pytest.mark.usefixtures("family")
def test_show_a_task(told):
    assert told("show", "child") == (
        "task child\n"
        "version  ID\n"
        "uuid     UUID\n"
        "added    TIME\n"
        "source   safetensors, 17 tensors: 17 same (1 I64, 9 F32, 3 BF16, 3 F16, 1 F64)\n"
        "stored SIZE of SIZE ( N %)\n"
        "from     alpha, beta\n"
        "files    1_Pooling/config.json, README.md, config.json, modules.json, tokenizer.json, tokenizer_config.json\n"
    )


@pytest.mark.usefixtures("family")
def test_show_a_revision(told):
    assert told("show", "HEAD~1") == (
        "commit ID\nAda <ada@example.com>  TIME\n    Add child\nadded: child\ntasks: alpha, beta, child\n"
    )
    assert told("show", "HEAD").endswith("    Save prod\nrecipes new: prod\ntasks: alpha, beta, child\nrecipes: prod\n")
    assert told("show", "HEAD~4").endswith("    wvc init --base base\ntasks: none\n")


@pytest.mark.usefixtures("two")
def test_diff(told):
    assert told("diff", "beta") == (
        "     tensors  changed  relative norm\nall       16       12         0.0432\n"
    )  # fmt: skip
    assert told("diff", "alpha", "beta", "--layers") == (
        "                            tensors  changed A  changed B  differing  norm A  norm B   cosine  sign conflict\n"
        "embeddings.word_embeddings        1          1          0          1  0.0500  0.0000        -         0.0000\n"
        "empty                             1          0          0          0       -       -        -         0.0000\n"
        "encoder.layer.0                   4          4          4          4  0.0473  0.0498   0.0039         0.4915\n"
        "encoder.layer.1                   4          4          4          4  0.0499  0.0497  -0.0246         0.4786\n"
        "encoder.layer.2                   4          4          4          4  0.0538  0.0537   0.1126         0.4487\n"
        "logit_scale                       1          1          0          1  0.0472  0.0000        -         0.0000\n"
        "pooler                            1          1          0          1  0.0490  0.0000        -         0.0000\n"
        "all                              16         15         12         15  0.0500  0.0432   0.0246         0.3393\n"
    )


@pytest.mark.usefixtures("two")
def test_diff_as_markdown(told):
    assert told("diff", "alpha", "beta", "--md") == (
        "**alpha** (A) against **beta** (B)\n"
        "\n"
        "|  | tensors | changed A | changed B | differing | norm A | norm B | cosine | sign conflict |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        "| all | 16 | 15 | 12 | 15 | 0.0500 | 0.0432 | 0.0246 | 0.3393 |\n"
    )
    assert told("diff", "beta", "--md").splitlines()[0] == "**beta** (A) against the base"


def test_diff_can_decide_the_exit_code(two, templates):
    two.put("copy", templates.base)

    assert [two.run("diff", *which, "--exit-code").code for which in (["alpha", "beta"], ["alpha"], ["copy"])] == [
        1,
        1,
        0,
    ]
    assert two.run("diff", "alpha", "alpha", "--exit-code").code == 0
    assert two.run("diff", "alpha", "beta").code == 0


@pytest.mark.usefixtures("two")
def test_checkout(told, tmp_path):
    out = tmp_path / "out"
    assert told("checkout", "--tasks", "alpha,beta=0.5", "-o", out) == (
        "OUT: alpha + beta=0.5 by opcm-s, 17 tensors, SIZE in N s\ndigest ID\n"
    )
    assert told("-v", "checkout", "-o", out).splitlines()[1] == "tensors: 2 base, 9 elementwise, 6 projected"
    assert told("checkout", "--tasks", "alpha", "-o", out).startswith("OUT: alpha bit for bit, 17 tensors")
    assert told("checkout", "--tasks", "", "-o", out).startswith("OUT: the base bit for bit, 17 tensors")


@pytest.mark.usefixtures("two")
def test_checkout_dry_run(told):
    text = re.sub(r"about \d+ s", "about N s", told("checkout", "--dry-run", "--jobs", "1"))
    lines = [" ".join(line.split()) for line in text.splitlines()]

    assert lines[0] == "would write 17 tensors, SIZE, to REPO/model: alpha + beta by opcm-s"
    assert lines[1:5] == ["reads SIZE", "scratch SIZE", "peak memory SIZE", "time about N s"]
    assert lines[5:] == [
        "",
        "tensors what method why rule reads writes",
        "2 base - unchanged - SIZE SIZE",
        "3 elementwise opcm-s changed by one task - SIZE SIZE",
        "6 elementwise opcm-s no matrix - SIZE SIZE",
        "6 projected opcm-s matrix - SIZE SIZE",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.01, "1 s"), (99.4, "99 s"), (100, "2 min"), (5999, "100 min"), (7200, "2 h")]
)
def test_a_rough_time(seconds, shown):
    assert duration(seconds) == shown


def test_recipes(family, told):
    family.wvc("recipe", "save", "draft", "--tasks", "beta", "--method", "task_arithmetic")

    assert told("recipe", "list") == (
        "draft  task_arithmetic  beta              staged\nprod   opcm-s           alpha + beta=0.5\n"
    )
    assert told("recipe", "show", "draft") == (
        "recipe      draft (staged)\ntasks       beta\nmethod      task_arithmetic\n-p scaling  1.0\ndigest      ID\n"
    )


def test_revert(family, told, tmp_path):
    family.wvc("checkout", "--tasks", "alpha,beta", "-o", tmp_path / "out")

    assert told("revert", "alpha", "--keep-derived") == (
        "took out alpha in commit ID; record .wvc/removals/UUID.json\n"
        "changed recipes: prod\n"
        "kept tasks that derive from it: child\n"
        "rebuilt OUT: ID, equal to a build that never had the task\n"
        "computed recipe prod to compare, nothing on disk: ID, equal to a build that never had the task\n"
        "computed all tasks to compare, nothing on disk: ID, equal to a build that never had the task\n"
        "history still holds it: its SIZE stay in the store, and older revisions check out\n"
    )


def test_revert_of_a_staged_task(told, two, templates):
    two.json("add", templates.alpha, "--task", "new")

    assert told("revert", "new", "-n") == "would drop the staged task new; nothing would be committed\n"
    assert told("revert", "new") == "dropped the staged task new; nothing was committed\n"
    two.wvc("recipe", "save", "r", "--tasks", "beta")
    assert told("status").endswith("  new recipe:  r\ntake back with `wvc unstage NAME`\n")


def test_revert_of_the_last_task(told, two):
    two.wvc("revert", "beta", "--no-rebuild")

    assert told("revert", "alpha") == (
        "took out alpha in commit ID; record .wvc/removals/UUID.json\n"
        "computed all tasks to compare, nothing on disk: ID (no task is left: the base), "
        "equal to a build that never had the task\n"
        "history still holds it: its SIZE stay in the store, and older revisions check out\n"
    )


def test_verify(two, told, tmp_path):
    two.wvc("checkout", "-o", tmp_path / "out")
    assert told("verify", tmp_path / "out", "--replay") == (
        "ok  files              7 files as locked\n"
        "ok  model.safetensors  17 tensors as locked\n"
        "ok  replay             17 tensors rebuilt from sources, byte for byte\n"
        "digest ID\n"
    )
    (tmp_path / "out/config.json").write_text("{}")
    ran = two.run("verify", tmp_path / "out")
    assert (ran.code, ran.out.splitlines()[0]) == (1, "FAILED  files              config.json differs")


def test_fsck(two, told, masked):
    assert (
        told("fsck") == "3 manifests; 3 of 3 objects, SIZE, present; `wvc fsck --full` reads them\nno problems found\n"
    )
    assert told("fsck", "--full").startswith("3 manifests; 3 of 3 objects, SIZE, read and compared\n")
    oid = next(entry["object"] for entry in two.manifest("beta")["tensors"] if "object" in entry)
    two.object_file(oid).unlink()

    ran = two.run("fsck")

    assert ran.code == 1
    assert masked(ran.out).splitlines() == [
        "task beta: 1 of 1 object missing",
        "3 manifests; 2 of 3 objects, SIZE, present; `wvc fsck --full` reads them",
        "1 problem found",
    ]
    names = [
        f"beta: encoder.layer.{n}.{part}"
        for n in (0, 1, 2)
        for part in ("attention.query.bias", "attention.query.weight", "output.dense.weight", "output.norm.weight")
    ]
    assert masked(two.run("-v", "fsck").out).splitlines() == [
        "task beta: 1 of 1 object missing",
        "missing ID: not in the store",
        f"  needed by {', '.join(names[:10])} and 3 more",
        "3 manifests; 2 of 3 objects, SIZE, present; `wvc fsck --full` reads them",
        "1 problem found",
    ]


def test_fsck_counts_what_nothing_refers_to(two, templates):
    two.wvc("add", templates.root / "models/alpha", "--task", "x", "--codec", "raw")
    (two.path / ".git/wvc/stage/tasks/x.json").unlink()

    assert "1 object that nothing refers to; `wvc gc -n` says what can go\n" in two.wvc("fsck")


def test_env(wvc):
    lines = wvc("env").out.splitlines()

    assert [line.split()[0] for line in lines] == [
        "wvc", "python", "platform", "cores", "git", "codec", "torch", "numpy", "zstandard", "xxhash", "blake3",
        "click", "GitPython", "rich",
    ]  # fmt: skip


def test_env_has_the_version_of_git(wvc, monkeypatch, tmp_path):
    said = subprocess.run(["git", "--version"], capture_output=True, text=True, check=True).stdout

    assert said == f"git version {wvc('env', '--json').json['git']}\n"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "\ngit          not found\n" in wvc("env").out


def test_env_says_how_the_codec_runs(wvc, monkeypatch):
    from weightvc.cli import env
    from weightvc.delta.kernels import portable

    assert wvc("env").err == ""
    monkeypatch.setattr(env, "loops", portable)
    ran = wvc("env")
    assert "codec loops  portable\n" in ran.out
    assert ran.err.endswith("run in NumPy, which is slower: install again where there is a C compiler\n")


def test_the_version(wvc):
    from importlib import metadata

    assert wvc("--version").out == f"wvc {metadata.version('weightvc')}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(wvc, shell):
    ran = wvc("completion", shell)

    assert ran.code == 0
    assert f"_WVC_COMPLETE={shell}_complete" in ran.out
    assert ran.out.strip() == wvc("completion", shell, "--json").json["script"].strip()


def test_completion_says_where_its_script_goes(wvc):
    text = wvc("completion", "--help").out

    assert "\\b" not in text
    assert '  bash: add to ~/.bashrc:                  eval "$(wvc completion bash)"\n  zsh: ' in text


def test_what_others_wrote_cannot_drive_a_terminal(two):
    hostile = "\x1b]0;owned\x07\u202egnp"
    manifest = two.path / ".wvc/tasks/alpha.json"
    manifest.write_text(manifest.read_text().replace('"source":"safetensors"', '"source":"\\u001b[2J"'))
    two.git("commit", "-qam", hostile)
    said = [two.run(*arguments) for arguments in (["show", "HEAD"], ["log"], ["show", "alpha"])]
    (two.path / ".wvc/tasks/beta.json").rename(two.path / ".wvc/tasks/b\x1b[2Jeta.json")
    two.git("add", "-A")
    two.git("commit", "-qm", "more")
    said += [two.run(*arguments) for arguments in (["status"], ["fsck"])]

    assert [ran.code for ran in said] == [0, 0, 0, 4, 1]
    for ran in said:
        assert all(c.isprintable() or c == "\n" for c in ran.out + ran.err), ran
        assert "\\u001b" in ran.out + ran.err
        assert "\u202e" not in ran.out


def test_fsck_names_what_no_tensor_needs(two):
    (two.path / ".wvc/tasks/alpha.json").write_text("{}")
    two.git("commit", "-qam", "broken")

    ran = two.run("fsck")

    assert ran.code == 1
    assert [line.partition(": ")[0] for line in ran.out.splitlines()[:2]] == [
        "manifest .wvc/tasks/alpha.json",
        "manifest HEAD",
    ]
    assert "needed by" not in ran.out


def test_show_a_task_of_one_file(two, templates):
    two.put("single", templates.alpha / "model.safetensors", "--derived-from", "alpha")

    shown = two.wvc("show", "single")

    assert "files" not in shown
    assert "from     alpha\n" in shown
