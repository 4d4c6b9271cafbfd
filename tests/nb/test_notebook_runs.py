"""setup(), the runner without a kernel, in-place execution, figures and widgets."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from sslcore.backbones import create_backbone
from sslcore.evidence import load_evidence
from sslcore.experiment import compare
from sslcore.nb import attention_explorer, knob, plot_attention, plot_same_object, run, same_object_explorer, setup
from sslcore.nb.__main__ import main
from sslcore.nb.cells import read_cells
from sslcore.nb.percent import from_percent
from sslcore.nb.style import INK, PALETTE, use_style
from sslcore.nb.widgets import widgets_available

DEMO = '''# %% [markdown]
# # Demo
# %%
from dataclasses import dataclass
import inspect, os, pickle
import matplotlib.pyplot as plt
from IPython.display import Markdown, display
from sslcore.nb import setup
lesson = setup("00_start/tour")
here = os.getcwd()
# %%
@dataclass
class Point:
    """A class that must survive pickling, as worker processes need it to."""
    x: int = 1
copy = pickle.loads(pickle.dumps(Point(3)))
def double(x):
    return 2 * x
source = inspect.getsource(double)
copy
# %%
figure, axes = plt.subplots()
axes.plot([1, 2])
plt.show()
# %%
steps = lesson.pick(cpu=2, gpu=200);
# %%
# only a comment
'''


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    for name in ("SSLCORE_SCALE", "SSLCORE_EVIDENCE", "SSLCORE_CHAPTERS", "SSLCORE_DEVICE"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "demo.py").write_text(DEMO)
    return from_percent(tmp_path / "demo.py", tmp_path / "chapters" / "00_start" / "tour.ipynb")


def test_runs_in_the_notebooks_folder_and_restores_everything(notebook, tmp_path, capsys):
    before = (Path.cwd(), sys.modules["__main__"])
    namespace = run(notebook, figures=tmp_path / "figures", timing=True)
    assert (Path.cwd(), sys.modules["__main__"]) == before
    assert namespace["here"] == str(notebook.parent) and namespace["copy"].x == 3
    assert "return 2 * x" in namespace["source"] and namespace["steps"] == 2
    assert namespace["lesson"].evidence_folder == notebook.parent / "evidence"
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["cell04_0.png"]
    printed = capsys.readouterr().out
    assert "Point(x=3)" in printed and "scale cpu" in printed and "[total" in printed
    assert printed.count("[cell") == 5


def test_runs_without_ipython(notebook, monkeypatch, capsys):
    monkeypatch.setattr("sslcore.nb.runner.importlib.util.find_spec", lambda name: None)
    kept = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "IPython"}
    for name in kept:
        monkeypatch.delitem(sys.modules, name)
    notebook.write_text(notebook.read_text().replace("plt.show()", "display(Markdown('**shown**'))"))
    run(notebook)
    assert "**shown**" in capsys.readouterr().out
    assert "IPython.display" not in sys.modules


def test_gpu_scale_chooses_the_larger_constants(notebook, monkeypatch):
    monkeypatch.setenv("SSLCORE_DEVICE", "cpu")
    assert run(notebook, "gpu")["steps"] == 200


def test_errors_come_through_with_their_cell(notebook, tmp_path):
    before = Path.cwd()
    notebook.write_text(notebook.read_text().replace("copy = pickle", "copy = missing"))
    with pytest.raises(NameError) as caught:
        run(notebook)
    assert "<tour cell 3>" in str(caught.traceback[-1].path) and Path.cwd() == before
    notebook.write_text(notebook.read_text().replace("figure, axes", "%matplotlib inline\\nfigure, axes"))
    notebook.write_text(notebook.read_text().replace("copy = missing", "copy = pickle"))
    with pytest.raises(ValueError, match="cell 4.*magics"):
        run(notebook)


@pytest.mark.slow
def test_executing_in_place_stores_clean_outputs(notebook):
    assert main(["execute", str(notebook)]) == 0
    cells = [cell for cell in read_cells(notebook) if cell.kind == "code"]
    assert [cell.execution_count for cell in cells] == [1, 2, 3, 4, 5]
    text = notebook.read_text()
    assert "image/png" in text and str(notebook.parent) not in text and "iopub" not in text
    ids = [cell["id"] for cell in json.loads(text)["cells"]]
    main(["from-py", str(notebook.parents[2] / "demo.py"), str(notebook)])
    assert ids == [cell["id"] for cell in json.loads(notebook.read_text())["cells"]]


@pytest.mark.parametrize("place", [".", "chapters", "chapters/00_start", "tests"])
def test_setup_finds_the_chapters_from_anywhere_inside(tmp_path, monkeypatch, place):
    for folder in ("chapters/00_start", "chapters/01_contrastive", "tests"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("SSLCORE_EVIDENCE", "SSLCORE_CHAPTERS", "SSLCORE_SCALE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path / place)
    lesson = setup("01_contrastive/look", seed=3)
    assert lesson.evidence_folder == tmp_path / "chapters/01_contrastive/evidence"
    assert lesson.checkpoints_folder == tmp_path / "chapters/checkpoints"
    assert (lesson.slug, lesson.scale, lesson.seed, lesson.device.type) == ("look", "cpu", 3, "cpu")


def test_setup_seeds_and_refuses(monkeypatch):
    monkeypatch.delenv("SSLCORE_SCALE", raising=False)
    setup("00_start/tour", seed=5)
    first = torch.rand(3)
    setup("00_start/tour", seed=5)
    assert torch.equal(first, torch.rand(3))
    for chapter in ("tour", "00_start/", "a/b/c"):
        with pytest.raises(ValueError, match="NN_family/slug"):
            setup(chapter)
    monkeypatch.setenv("SSLCORE_SCALE", "huge")
    with pytest.raises(ValueError, match="known: cpu, gpu"):
        setup("00_start/tour")


@pytest.mark.skipif(torch.cuda.is_available(), reason="only where there is no CUDA device")
def test_gpu_scale_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.delenv("SSLCORE_DEVICE", raising=False)
    monkeypatch.setenv("SSLCORE_SCALE", "gpu")
    with pytest.raises(ValueError, match="CUDA"):
        setup("00_start/tour")


def test_setup_saves_claims_and_readouts(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SSLCORE_EVIDENCE", str(tmp_path))
    monkeypatch.delenv("SSLCORE_SCALE", raising=False)
    lesson = setup("01_contrastive/look")
    arms = {"a": lambda s: 1.0 + s / 100, "b": lambda s: 0.5}
    lesson.save(compare(arms, (0, 1, 2), claim="a beats b", treatment="a", control="b", margin=0))
    lesson.readout("binding", "AUROC", torch.tensor(0.7), untrained=0.5)
    lesson.record("board", {"a": {"binding": 0.7}})
    data = load_evidence(tmp_path / "look.cpu.json")
    assert data["claims"]["main"]["verdict"] == "holds" and data["numbers"] == {"board": {"a": {"binding": 0.7}}}
    assert data["readouts"]["binding"] == {"metric": "AUROC", "value": pytest.approx(0.7), "untrained": 0.5}
    assert "holds: a beats b" in capsys.readouterr().out
    other = compare(arms, (0, 1, 2), claim="c", treatment="a", control="b", margin=0, slug="seer")
    with pytest.raises(ValueError, match="seer"):
        lesson.save(other)


def luminance(color):
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a, b):
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_text_and_colours_are_legible_on_light_and_dark_pages():
    for page in ("#ffffff", "#111111"):  # JupyterLab's light and dark page
        assert contrast(INK, page) >= 3.0  # WCAG: graphical objects and large text
        assert all(contrast(color, page) >= 1.9 for color in PALETTE)
    use_style()
    import matplotlib

    assert matplotlib.rcParams["figure.facecolor"] == "none" and matplotlib.rcParams["text.color"] == INK


@pytest.fixture(scope="module")
def network():
    return create_backbone("vit", img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)


IMAGES = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_attention_figure_shows_the_queried_row(network):
    figure = plot_attention(network, IMAGES, layer=1, head=2, query=(1, 3))
    from sslcore.nb.figures import attention_of
    from sslcore.views import normalize

    with torch.no_grad():
        tokens = network.eval()(normalize(IMAGES), return_attention=True)
    expected = tokens.attentions[1][0, 2, 1 + 1 * 4 + 3, 1:].reshape(4, 4)
    drawn = figure.axes[2].images[0].get_array()  # second row, first column
    torch.testing.assert_close(torch.tensor(drawn.data), expected)
    cls_row = attention_of(network, IMAGES).of_query(-1, "cls")
    torch.testing.assert_close(cls_row[1, 0].flatten(), tokens.attentions[-1][1, 0, 0, 1:])


def test_figures_refuse_what_is_not_there(network):
    for change, said in (({"layer": 5}, "layer"), ({"head": 3}, "head"), ({"query": (4, 0)}, "4 x 4")):
        with pytest.raises(ValueError, match=said):
            plot_attention(network, IMAGES, **change)
    with pytest.raises(ValueError, match="attention"):
        plot_attention(create_backbone("convnet", in_chans=3, widths=(4, 8)), IMAGES)
    with pytest.raises(ValueError, match="scores"):
        plot_same_object(IMAGES[0], torch.zeros(4, 4), (0, 0), (4, 4))


def test_same_object_figure_shows_probabilities_and_truth():
    scores = torch.linspace(-4, 4, 256).reshape(16, 16)
    mask = torch.zeros(32, 32, dtype=torch.uint8)
    mask[:, 16:] = 1
    figure = plot_same_object(IMAGES[0], scores, (2, 3), (4, 4), mask)
    assert len(figure.axes) == 3
    drawn = torch.tensor(figure.axes[1].images[0].get_array().data)
    torch.testing.assert_close(drawn, scores[2 * 4 + 3].sigmoid().reshape(4, 4))
    assert torch.equal(torch.tensor(figure.axes[2].images[0].get_array().data), (mask == 1).float())
    assert len(plot_same_object(IMAGES[0], scores.sigmoid(), (0, 0), (4, 4)).axes) == 2


def test_widgets_fall_back_to_one_call(network):
    assert not widgets_available()
    calls = knob(lambda **values: values, a=(0, 10), b=(0.0, 1.0), c=["x", "y"], d=True, e="fixed", start={"b": 0.2})
    assert calls == {"a": 5, "b": 0.2, "c": "x", "d": True, "e": "fixed"}
    assert len(attention_explorer(network, IMAGES).axes) == 4
    assert len(same_object_explorer(IMAGES, torch.zeros(2, 16, 16), (4, 4)).axes) == 2
    with pytest.raises(ValueError, match="slider"):
        knob(lambda a: a, a=(1,))
    with pytest.raises(ValueError, match="scores"):
        same_object_explorer(IMAGES, torch.zeros(1, 16, 16), (4, 4))


def test_sliders_redraw_the_picture(monkeypatch):
    ipywidgets = pytest.importorskip("ipywidgets")
    shown, drawn = [], []
    monkeypatch.setattr("sslcore.nb.widgets.widgets_available", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)

    def draw(level, kind, label):
        import matplotlib.pyplot as plt

        drawn.append((level, kind, label))
        return plt.subplots()[0]

    assert knob(draw, level=(0, 4), kind=["a", "b"], label="fixed") is None
    box = shown[0]
    slider, choice = box.children[0].children
    assert isinstance(slider, ipywidgets.IntSlider) and len(box.children[0].children) == 2
    first = box.children[1].value
    slider.value = 4
    choice.value = "b"
    assert drawn == [(2, "a", "fixed"), (4, "a", "fixed"), (4, "b", "fixed")]
    assert box.children[1].value[:4] == b"\x89PNG" == first[:4]
