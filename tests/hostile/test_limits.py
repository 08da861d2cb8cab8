"""What claims more than there is, is refused before room for it is set aside."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("limits.py")


@pytest.fixture(scope="module")
def told():
    environment = {**os.environ, "PYTHONPATH": str(SCRIPT.parents[2]), "OPENBLAS_NUM_THREADS": "1"}
    ran = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_no_claim_is_believed(told):
    grew = told.pop("grew")
    assert told.pop("the cap") == "holds"
    assert {what: said for what, said in told.items() if said.startswith("!")} == {}
    refused = [what for what in told if what.startswith(("header", "object", "bundle", "json", "toml"))]
    assert len(refused) > 20
    assert all(told[what] for what in refused)
    assert grew < 96 * 1024  # KiB, for all of them together


@pytest.mark.parametrize(
    ("claim", "says"),
    [
        ("header: a length of 2**63", "more than the limit of 16777216"),
        ("header: a length of 17 MiB, and as many bytes", "more than the limit of 16777216"),
        ("header: 150,000 tensors", "more than 100000 tensors"),
        ("header: a tensor of 2**47 bytes", "89 bytes where its header needs"),
        ("object: 2**48 - 1 bytes in no chunk", "0 bytes cannot hold 536870912 chunks"),
        ("object: a frame: 32 TiB", "does not declare 3000 bytes"),
        ("object: a frame: a window", "with a window of 2147483648 bytes"),
        ("object: factors of a tensor of 4 GiB by svd:128", "an array is cut short"),
        ("object: factors of a tensor of 4 GiB by intdelta", "an array is cut short"),
        ("object: scales of a tensor of 4 GiB by int2", "an array is cut short"),
        ("bundle: a million parts", "bundle sizes add up to 500000 bytes"),
    ],
)
def test_the_limit_is_named(told, claim, says):
    assert says in told[claim]


def test_a_header_that_no_weight_file_can_have(clone):
    """A few bytes can stand for gigabytes of zeros; no header that was added has more than 16 MiB."""

    def change(value):
        value["headers"][0] |= {"shape": [2**32]}

    clone.forge(change)
    clone.refuses_alpha(
        "the header of model.safetensors has 4294967296 bytes, more than any that was added", "run `wvc fsck"
    )
