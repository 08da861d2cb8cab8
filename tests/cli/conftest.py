import re

import pytest


@pytest.fixture(scope="module", autouse=True)
def _clean_environment(clean_environment):
    """Every test of this room."""


@pytest.fixture
def masked():
    """Replace what differs between runs, machines and versions of zstd: paths, ids, times, durations and sizes."""

    def mask(text: str, **names: object) -> str:
        for name, value in names.items():
            text = text.replace(str(value), name.upper())
        text = re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)?", "TIME", text)
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
        text = re.sub(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}([0-9a-f]{4}|[0-9a-f]{28}|[0-9a-f]{52})?\b", "ID", text)
        text = re.sub(r" *\b\d+(\.\d [KMG]i)?B", " SIZE", re.sub(r"(\d+) B\b", r"\1B", text))
        return re.sub(r" *\b\d+\.\d (s|%)", r" N \1", text)

    return mask
