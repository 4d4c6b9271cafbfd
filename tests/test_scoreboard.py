"""The list of notebooks, the tables built from evidence, and the block in the README."""

from __future__ import annotations

from pathlib import Path

import pytest

from sslcore.experiment import compare
from sslcore.nb.cells import joined, read_cells
from sslcore.scoreboard import (
    END,
    ENTRIES,
    START,
    chapter_map,
    family_table,
    find_entry,
    main,
    scoreboard,
    with_block,
)

ROOT = Path(__file__).parents[1]


def measure(slug, effect, folder, **kw):
    arms = {"ssl": lambda s: 0.5 + effect + s / 1000, "untrained": lambda s: 0.5 - s / 1000}
    compare(arms, (0, 1, 2), claim="ssl | beats untrained", treatment="ssl", control="untrained", margin=0.01,
            slug=slug, images_seen=2_000, **kw).save(folder)


@pytest.fixture
def chapters(tmp_path):
    folder = tmp_path / "chapters" / "01_contrastive"
    (folder / "evidence").mkdir(parents=True)
    (folder / "look.ipynb").write_text("{}")
    measure("look", 0.2, folder / "evidence")
    measure("look", -0.2, folder / "evidence", scale="gpu")
    return tmp_path / "chapters"


def test_forty_two_papers_each_once():
    papers = [entry for entry in ENTRIES if entry.paper]
    assert len(papers) == 42
    assert len({entry.slug for entry in ENTRIES}) == len(ENTRIES)
    assert [entry.chapter for entry in ENTRIES] == sorted(entry.chapter for entry in ENTRIES)
    assert find_entry("swav").chapter == "02_clustering" and find_entry("nothing") is None


def test_every_notebook_is_listed():
    notebooks = {(path.parent.name, path.stem) for path in ROOT.glob("chapters/[0-9]*/*.ipynb")}
    assert notebooks <= {(entry.chapter, entry.slug) for entry in ENTRIES}


def test_rows_come_from_evidence(chapters):
    board = scoreboard(chapters)
    row = next(line for line in board.splitlines() if "look.ipynb" in line)
    assert "holds (cpu)<br>opposite (gpu)" in row and "+0.20" in row and "-0.19" in row
    assert "ssl \\| beats untrained" in row and "12 k images" in row
    assert row.replace("\\|", "").count("|") == 8
    assert board.count("not built yet") == len(ENTRIES) - 1
    assert "1 of 42 papers" in board and "1 holds, 0 inconclusive, 1 opposite" in board


def test_a_family_table_is_some_rows_of_the_board(chapters):
    table = family_table(["swav", "look"], chapters)
    rows = table.splitlines()[2:]
    assert len(rows) == 2 and "not built yet" in rows[0] and "holds (cpu)<br>opposite (gpu)" in rows[1]
    assert "](../01_contrastive/look.ipynb)" in rows[1]
    with pytest.raises(ValueError, match="unknown notebook 'nothing'"):
        family_table(["nothing"], chapters)


FAMILIES = sorted(ROOT.glob("chapters/*/*_family.ipynb"))


@pytest.mark.parametrize("path", FAMILIES, ids=[path.stem for path in FAMILIES])
def test_the_table_of_a_family_page_is_up_to_date(path):
    cells = read_cells(path)
    cell = next(cell for cell in cells if "family_table(" in cell.source and "FAMILY = " in cell.source)
    slugs = eval(cell.source.partition("FAMILY = ")[2].partition("\n")[0])
    shown = [joined(output["data"]["text/markdown"]) for output in cell.outputs if "text/markdown" in output["data"]]
    assert shown == [family_table(slugs)], f"execute {path.name} again"


def test_several_claims_are_numbered(chapters):
    measure("look", 0.0, chapters / "01_contrastive" / "evidence", key="second")
    row = next(line for line in scoreboard(chapters).splitlines() if "look.ipynb" in line)
    assert "1: holds (cpu)" in row


def test_the_map_names_every_notebook_and_links_those_that_exist(chapters):
    table = chapter_map(chapters)
    assert all(table.count(f"[{entry.slug}]") + table.count(f"*{entry.slug}*") == 1 for entry in ENTRIES)
    assert "[look](../01_contrastive/look.ipynb)" in table and table.count("](") == 1
    assert len(table.splitlines()) == 2 + len({entry.chapter for entry in ENTRIES})


def test_unknown_evidence_is_an_error(chapters):
    measure("invented", 0.1, chapters / "01_contrastive" / "evidence")
    with pytest.raises(ValueError, match="invented"):
        scoreboard(chapters)


def test_write_then_check_then_stale(chapters, monkeypatch, capsys):
    monkeypatch.setenv("SSLCORE_CHAPTERS", str(chapters))
    readme = chapters.parent / "README.md"
    readme.write_text(f"# Course\n{START}\nold\n{END}\nend\n")
    assert main(["--check", str(readme)]) == 1 and "stale" in capsys.readouterr().out
    assert main(["--write", str(readme)]) == 0 and main(["--check", str(readme)]) == 0
    assert readme.read_text().startswith("# Course\n") and readme.read_text().endswith("\nend\n")
    measure("look", 0.4, chapters / "01_contrastive" / "evidence")
    assert main(["--check", str(readme)]) == 1
    assert main([]) == 0 and "+0.4" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["nothing", START, f"{END} {START}", f"{START}{START}{END}"])
def test_markers_must_stand_once_in_order(text):
    with pytest.raises(ValueError, match="once each"):
        with_block(text, "board")


def test_the_readme_shows_the_evidence_that_is_there():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert with_block(text, scoreboard(ROOT / "chapters")) == text, "run python -m sslcore.scoreboard --write README.md"
