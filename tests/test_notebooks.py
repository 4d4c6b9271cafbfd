"""Every notebook keeps the contract and runs; every student copy runs to its first gap and stops there."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslcore.nb.contract import check_notebook
from sslcore.nb.percent import from_percent
from sslcore.nb.runner import run
from sslcore.nb.student import write_student_copies
from tests.notebooks import run_notebook

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted(ROOT.glob("chapters/[0-9]*/*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_keeps_the_contract(path):
    assert check_notebook(path) == []


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_runs_from_a_fresh_kernel(path):
    passed, _, said = run_notebook(path)
    assert passed, said[-6000:]


@pytest.fixture(scope="module")
def student_copies(tmp_path_factory):
    target = tmp_path_factory.mktemp("student")
    return {path.stem: path for path in write_student_copies(ROOT / "chapters", target)}


@pytest.mark.notebook
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_student_copy_stops_at_its_first_gap(path, student_copies, tmp_path, monkeypatch):
    copy = student_copies[path.stem]
    if '"gap"' not in copy.read_text(encoding="utf-8"):
        pytest.skip("no exercises")
    monkeypatch.setenv("SSLCORE_EVIDENCE", str(tmp_path))
    monkeypatch.setenv("SSLCORE_CHAPTERS", str(ROOT / "chapters"))
    with pytest.raises(NotImplementedError, match="replace this line by your own code"):
        run(copy)


def notebook(folder, code):
    (folder / "a.py").write_text(f"# %%\n{code}\n", encoding="utf-8")
    return from_percent(folder / "a.py", folder / "a.ipynb")


FAILURES = {
    "1 / 0": "ZeroDivisionError",
    "import time; time.sleep(100)": "stopped after",
    "import urllib.request; urllib.request.urlopen('http://example.org', timeout=5)": "URLError",
}


@pytest.mark.notebook
@pytest.mark.parametrize("code", FAILURES)
def test_the_driver_fails_on_errors_overtime_and_downloads(tmp_path, code, monkeypatch):
    monkeypatch.setattr("tests.notebooks.STARTUP", 20.0 if "sleep" in code else 120.0)
    passed, _, said = run_notebook(notebook(tmp_path, code), factor=0.01)
    assert not passed and FAILURES[code] in said


@pytest.mark.notebook
def test_the_driver_passes_and_keeps_evidence_aside(tmp_path):
    code = "import os, matplotlib\nassert 'inline' in matplotlib.get_backend()\nassert os.environ['SSLCORE_EVIDENCE']"
    passed, _, said = run_notebook(notebook(tmp_path, code))
    assert passed, said
