"""No parser runs, imports, unpickles, connects or spawns anything, whatever it is given."""

import json
import os
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("audit.py")


def test_parsers_only_parse(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2])}
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert {"exec", "pickle", "socket", "subprocess"} <= {*told["live"]}  # the hook sees what it must
    assert told["seen"] == []
    assert told["refused"] > 50
    assert told["restricted"] > 4  # PyTorch's own unpickler, which makes tensors and nothing else
    assert not (tmp_path / "ran").exists()
