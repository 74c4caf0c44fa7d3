"""What `bench web` prints: every line, with numbers that can belong together."""

import os
import re
import subprocess
import sys

import pytest

from tests.render.web.conftest import ROOT

pytestmark = pytest.mark.usefixtures("browser")


def test_bench_web_prints_what_the_page_costs_with_each_encoding_and_with_watchers(
    tiny_world_folder, tiny_scene
):
    options = (
        "--world",
        str(tiny_world_folder),
        "--scene",
        str(tiny_scene),
        "--presses",
        "8",
        "--ticks",
        "20",
    )
    done = subprocess.run(
        [sys.executable, "main.py", "bench", "web", *options, "--watchers", "2"], cwd=ROOT, timeout=200,
        capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    lines = [(line[:13].strip(), line[13:].strip()) for line in done.stdout.splitlines()]
    parts = ["key to frame", "beyond tick"]
    assert [name for name, _ in lines] == [
        "hardware", "world", "browser", "jpeg", *parts, "h264", *parts, *["watched"] * 4,
    ]  # fmt: skip
    said = [text for _, text in lines]
    for at in (4, 7):
        whole, beyond = ([float(n) for n in re.findall(r"-?[\d.]+", said[at + by])[:3]] for by in (0, 1))
        assert len(whole) == len(beyond) == 3 and whole == sorted(whole) and beyond == sorted(beyond)
        assert 0 < beyond[0] < whole[0]
        assert 0 < int(said[at - 1].split()[0]) <= 16
    assert [text.split(":")[0] for text in said[9:]] == ["by 0", "by 2", "by 0", "by 2"]
