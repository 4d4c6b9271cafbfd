"""Percent format, student copies, and the checks of the notebook contract."""

from __future__ import annotations

import json

import pytest

from sslcore.nb.__main__ import main
from sslcore.nb.cells import read_cells, read_notebook
from sslcore.nb.contract import PAPER_HEADINGS, check_notebook
from sslcore.nb.execute import clean_notebook
from sslcore.nb.percent import from_percent, parse_percent, to_notebook, to_percent, write_notebook
from sslcore.nb.student import emptied, student_notebook, write_student_copies

SOURCE = """# %% [markdown]
# # Title
#
# Text with `# %%` inside.

# %% tags=["exercise", "solution"]
def double(x: int) -> int:
    \"\"\"Twice x.\"\"\"
    return 2 * x

# %%
double(2)

# %%
double(2)
"""


def test_percent_format_gives_cells_tags_and_stable_ids(tmp_path):
    cells = parse_percent(SOURCE)
    assert [cell.kind for cell in cells] == ["markdown", "code", "code", "code"]
    assert cells[0].source == "# Title\n\nText with `# %%` inside." and cells[1].tags == ("exercise", "solution")
    (tmp_path / "a.py").write_text(SOURCE)
    first, second = from_percent(tmp_path / "a.py", tmp_path / "a.ipynb"), tmp_path / "b.ipynb"
    from_percent(tmp_path / "a.py", second)
    assert first.read_bytes() == second.read_bytes()
    ids = [cell["id"] for cell in read_notebook(first)["cells"]]
    assert len(set(ids)) == 4
    (tmp_path / "a.py").write_text(SOURCE.replace("Twice x.", "Two times x."))
    changed = [cell["id"] for cell in read_notebook(from_percent(tmp_path / "a.py", second))["cells"]]
    assert [old == new for old, new in zip(ids, changed, strict=True)] == [True, False, True, True]


def test_percent_round_trip(tmp_path):
    write_notebook(tmp_path / "a.ipynb", to_notebook(parse_percent(SOURCE)))
    to_percent(tmp_path / "a.ipynb", tmp_path / "a.py")
    from_percent(tmp_path / "a.py", tmp_path / "b.ipynb")
    assert (tmp_path / "a.ipynb").read_bytes() == (tmp_path / "b.ipynb").read_bytes()


def test_notebooks_follow_the_format(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.from_dict(to_notebook(parse_percent(SOURCE))))


MALFORMED = [("", "no '# %%'"), ("x = 1\n# %%\n", "line 1"), ("# %% [markdown]\nx\n", "line 2")]


@pytest.mark.parametrize(("text", "said"), MALFORMED)
def test_malformed_percent_text_is_named(text, said):
    with pytest.raises(ValueError, match=said):
        parse_percent(text)


@pytest.mark.parametrize("content", ["{", "[]", '{"nbformat": 3, "cells": []}'])
def test_other_files_are_no_notebooks(tmp_path, content):
    (tmp_path / "a.ipynb").write_text(content)
    with pytest.raises(ValueError, match="a.ipynb"):
        read_cells(tmp_path / "a.ipynb")


EMPTIED = [
    ("def f(x):\n    return x", "def f(x):\n    raise"),
    ('def f(x):\n    """Doc."""\n    y = x\n    return y\n\nf(1)', 'def f(x):\n    """Doc."""\n    raise'),
    ("def f(x): return x", "def f(x):\n    raise"),
    ("def f(\n    x: dict = {1: 2},  # odd: sign\n) -> int:\n    # secret\n    return x", ") -> int:\n    raise"),
    ("class A:\n    def __init__(self):\n        self.x = 1\n\n    def f(s):\n        return 2", "(s):\n        raise"),
    ("@decorated\ndef f(x):\n    def inner():\n        return x\n    return inner", "@decorated\ndef f(x):\n    raise"),
    ('def f(x):\n    """Two\n    lines."""\n    return x', 'lines."""\n    raise'),
]


@pytest.mark.parametrize(("source", "part"), EMPTIED)
def test_bodies_are_replaced_and_signatures_stay(source, part):
    result = emptied(source)
    assert part in result and "return" not in result and "secret" not in result
    compile(result, "cell", "exec")
    assert result.count("NotImplementedError") == 1
    assert ("f(1)" in result) == ("f(1)" in source)


def test_a_solution_without_function_is_refused():
    with pytest.raises(ValueError, match="no function"):
        emptied("answer = 42")


def test_student_copies_have_gaps_and_no_outputs(tmp_path):
    notebook = to_notebook(parse_percent(SOURCE + '\n# %% [markdown] tags=["solution"]\n# The answer is 4.\n'))
    notebook["cells"][2] |= {"execution_count": 1, "outputs": [output(text="4")]}
    write_notebook(tmp_path / "chapters" / "01_a" / "x.ipynb", notebook)
    (written,) = write_student_copies(tmp_path / "chapters", tmp_path / "out")
    cells = read_cells(written)
    assert written == tmp_path / "out" / "01_a" / "x.ipynb" and len(cells) == 4
    assert cells[1].tags == ("exercise", "gap") and "2 * x" not in written.read_text()
    assert all(not cell.outputs and cell.execution_count is None for cell in cells)
    with pytest.raises(ValueError, match="another folder"):
        write_student_copies(tmp_path / "chapters", tmp_path / "chapters")
    notebook["cells"][1]["source"] = "answer = 42"
    write_notebook(tmp_path / "chapters" / "01_a" / "x.ipynb", notebook)
    with pytest.raises(ValueError, match="x.ipynb.*no function"):
        write_student_copies(tmp_path / "chapters", tmp_path / "out")
    assert student_notebook(read_notebook(written))["cells"][1]["metadata"]["tags"] == ["exercise", "gap"]


def contract_notebook():
    """A minimal notebook that keeps the contract, as a dictionary."""
    gap = '# %% tags=["solution"]\ndef f{0}(x):\n    return x\n'
    text = "# %% [markdown]\n# # Look\n# Claim: one sentence. Cost: 10 s on 2 cores.\n"
    text += "".join(f"\n# %% [markdown]\n# ## {heading.capitalize()}\n" for heading in PAPER_HEADINGS)
    text += '\n# %%\nlesson = setup("01_contrastive/look")\n# %%\ncompare()\n' + gap.format(0) + gap.format(1)
    notebook = to_notebook(parse_percent(text))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    for count, cell in enumerate(code, 1):
        cell["execution_count"] = count
    return notebook


@pytest.fixture
def chapter(tmp_path):
    from sslcore.evidence import merge_evidence
    from sslcore.experiment import compare

    arms = {"a": lambda s: 1.0 + s / 100, "b": lambda s: 0.5}
    folder = tmp_path / "chapters" / "01_contrastive"
    compare(arms, (0, 1, 2), claim="c", treatment="a", control="b", margin=0, slug="look").save(folder / "evidence")
    number = {"metric": "AUROC", "value": 0.7}
    merge_evidence(folder / "evidence", "look", "cpu", readouts={"attention": number, "binding": number})
    return folder


def problems_of(chapter, notebook, **kw):
    return check_notebook(write_notebook(chapter / "look.ipynb", notebook), **kw)


def test_a_notebook_that_keeps_the_contract_has_no_problems(chapter):
    assert problems_of(chapter, contract_notebook()) == []


def output(**kw):
    return {"output_type": "stream", "name": "stdout", "text": "", **kw}


def _cells(notebook, kind):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == kind]


BREACHES = {
    "counts": lambda n: _cells(n, "code")[1].update(execution_count=7),
    "stored error": lambda n: _cells(n, "code")[0].update(outputs=[{"output_type": "error", "ename": "KeyError"}]),
    "stored warnings": lambda n: _cells(n, "code")[0].update(outputs=[output(name="stderr", text="careful")]),
    "names a machine's path": lambda n: _cells(n, "code")[0].update(outputs=[output(text="at /home/lovelace/x.py")]),
    "widget view": lambda n: _cells(n, "code")[0].update(
        outputs=[{"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}}}]
    ),
    "magic": lambda n: _cells(n, "code")[1].update(source="%time 1"),
    "lines of code": lambda n: _cells(n, "code")[1].update(source="compare()\n" * 201),
    "setup()": lambda n: _cells(n, "code")[0].update(source="x = 1"),
    "tagged solution": lambda n: _cells(n, "code")[-1].update(metadata={}),
    "no heading contains 'puzzle'": lambda n: _cells(n, "markdown")[2].update(source="## Riddle"),
    "too early": lambda n: n["cells"].insert(1, n["cells"].pop(3)) or n["cells"].insert(1, n["cells"].pop(4)),
    "state the cost": lambda n: _cells(n, "markdown")[0].update(source="# Look\nClaim: it works."),
    "start with '# title'": lambda n: n["cells"].pop(0),
    "unique ids": lambda n: n["cells"][1].update(id=n["cells"][0]["id"]),
    "claim is not tested": lambda n: _cells(n, "code")[1].update(source="x = 1"),
    "MB": lambda n: _cells(n, "code")[0].update(outputs=[output(text="x" * 1_600_000)]),
    "neither": lambda n: _cells(n, "markdown")[1].update(source="## Goals\nkNN is 0.93."),
}


@pytest.mark.parametrize("said", BREACHES)
def test_each_breach_is_named(chapter, said):
    notebook = contract_notebook()
    BREACHES[said](notebook)
    problems = problems_of(chapter, notebook)
    assert any(said in problem for problem in problems), problems


def test_stale_and_missing_evidence_are_named(chapter):
    path = chapter / "evidence" / "look.cpu.json"
    data = json.loads(path.read_text())
    data["claims"]["renamed"] = data["claims"]["main"]
    del data["readouts"]["binding"]
    path.write_text(json.dumps(data))
    problems = problems_of(chapter, contract_notebook())
    assert any("'renamed'" in p for p in problems) and any("no binding read-out" in p for p in problems)
    path.unlink()
    assert any("look.cpu.json is missing" in problem for problem in problems_of(chapter, contract_notebook()))
    assert problems_of(chapter, contract_notebook(), executed=False) == []


def test_unlisted_notebooks_are_named(chapter):
    path = write_notebook(chapter / "invented.ipynb", contract_notebook())
    assert any("not in the list" in problem for problem in check_notebook(path))


def test_command_line_checks_and_converts(chapter, tmp_path, capsys):
    path = write_notebook(chapter / "look.ipynb", contract_notebook())
    assert main(["check", str(path)]) == 0 and "keep the contract" in capsys.readouterr().out
    assert main(["to-py", str(path), str(tmp_path / "a.py")]) == 0
    assert main(["from-py", str(tmp_path / "a.py"), str(path)]) == 0
    assert main(["check", str(path)]) == 1 and "counts" in capsys.readouterr().out  # no longer executed
    assert main(["student", str(chapter.parent), str(tmp_path / "out")]) == 0
    assert "1 student copies" in capsys.readouterr().out


def test_cleaning_removes_what_names_the_machine():
    notebook = contract_notebook()
    cell = _cells(notebook, "code")[0]
    cell["metadata"] = {"tags": ["slow"], "execution": {"iopub.execute_input": "2026-01-01"}}
    cell["outputs"] = [
        output(text="saved /home/lovelace/course/x.json\n"),
        {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {}}, "metadata": {}},
        {"output_type": "display_data", "data": {"text/plain": "/tmp/a", "image/png": "AA"}, "metadata": {}},
    ]
    notebook["metadata"] = {"widgets": {}, "language_info": {"version": "3.11.7"}}
    cleaned = clean_notebook(notebook)
    text = json.dumps(cleaned)
    assert not any(word in text for word in ("lovelace", "/tmp", "widget", "2026-01"))
    assert "3.11" not in text and "slow" in text and len(_cells(cleaned, "code")[0]["outputs"]) == 2
