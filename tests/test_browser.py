"""A learner's first minute in a real browser: `make lab`, run all of the tour, move the layer slider, click a patch."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOUR = ROOT / "chapters" / "00_start" / "tour.ipynb"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: apt install chromium)"),
]

# Jupyter's commands act on the panel that has the focus.
CLEAR = "jupyterapp.commands.execute('notebook:clear-all-cell-outputs').then(() => true)"  # counts of stored runs too
RUN_ALL = "void jupyterapp.commands.execute('notebook:run-all-cells')"
READY = """(() => {
  const panel = [...(window.jupyterapp?.shell?.widgets('main') ?? [])].find(widget => widget.sessionContext);
  if (panel && jupyterapp.shell.currentWidget !== panel) jupyterapp.shell.activateById(panel.id);
  return panel && jupyterapp.shell.currentWidget === panel && panel.sessionContext.session?.kernel?.status === 'idle'
    && panel.content.widgets.length > 0;
})()"""
DONE = """(() => {
  const panel = jupyterapp.shell.currentWidget;
  const code = panel.content.widgets.filter(cell => cell.model.type === 'code' && cell.model.sharedModel.source.trim());
  return panel.sessionContext.session.kernel.status === 'idle' && code.every(cell => cell.model.executionCount);
})()"""
ERRORS = """jupyterapp.shell.currentWidget.content.widgets.filter(cell => cell.model.type === 'code')
  .flatMap(cell => cell.model.outputs.toJSON()).filter(output => output.output_type === 'error')
  .map(output => output.ename + ': ' + output.evalue)"""
# The first widget slider labelled "layer"; its handle answers to arrow keys as it does for a person.
FOCUS_SLIDER = """(() => {
  const labels = [...document.querySelectorAll('.jp-OutputArea .widget-label')];
  const label = labels.find(label => label.textContent.trim().toLowerCase().startsWith('layer'));
  const handle = label?.parentElement.querySelector('.noUi-handle');
  if (!handle) return null;
  handle.scrollIntoView({block: 'center'});
  handle.focus();
  return handle.getAttribute('aria-valuenow') ?? 'no value';
})()"""
# What the slider's output shows: every picture in its cell, as bytes, so that an equal picture counts as equal.
PICTURES = """(async () => {
  const area = document.activeElement.closest('.jp-CodeCell');
  const seen = [];
  for (const image of area.querySelectorAll('img')) {
    const bytes = new Uint8Array(await (await fetch(image.src)).arrayBuffer());
    const digest = await crypto.subtle.digest('SHA-256', bytes);
    seen.push(Array.from(new Uint8Array(digest)).join(' '));
  }
  for (const canvas of area.querySelectorAll('canvas')) seen.push(canvas.toDataURL());
  return seen;
})()"""
# Where the last clickable picture lies on the page.
LAST_PICTURE = """(() => {
  const image = [...document.querySelectorAll('.jp-OutputArea img')].filter(i => i.style.cursor === 'crosshair').at(-1);
  if (!image) return null;
  image.scrollIntoView({block: 'center'});
  const box = image.getBoundingClientRect();
  return {left: box.left, top: box.top, width: box.width, height: box.height, source: image.src};
})()"""


@contextmanager
def _started(command: list[str], log: Path, **options) -> Iterator[subprocess.Popen]:
    """A process whose output goes to `log`; ended, with all it started, when the block ends."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, **options)
        try:
            yield process
        finally:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait(20)


def _until(check: Callable[[], object], seconds: float, what: str, log: Path | None = None):
    """Call `check` until it returns something true; fail after `seconds` with the end of the log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := check():
            return value
        time.sleep(0.2)
    tail = log.read_text(errors="replace")[-3000:] if log else ""
    pytest.fail(f"no {what} after {seconds:.0f} s\n{tail}")


class Page:
    """One browser tab, driven over the Chrome DevTools protocol."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=120, suppress_origin=True)
        self._numbers = itertools.count(1)

    def call(self, method: str, **parameters):
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:  # events come in between
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]

    def value(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def press(self, key: str) -> None:
        for kind in ("rawKeyDown", "keyUp"):
            code = {"ArrowLeft": 37, "ArrowRight": 39}[key]
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def _page(folder: Path) -> Iterator[Page]:
    command = [CHROMIUM, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}"]
    command += ["--window-size=1400,1800", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
    if os.getuid() == 0:
        command.append("--no-sandbox")  # Chromium's sandbox refuses to run as root, a container's usual user
    log = folder / "chromium.log"
    with _started([*command, "about:blank"], log):
        listening = re.compile(r"DevTools listening on ws://([^/]+)/")
        found = _until(lambda: listening.search(log.read_text(errors="replace")), 60, "DevTools address", log)
        with urllib.request.urlopen(f"http://{found[1]}/json/list", timeout=30) as answer:
            tabs = [tab for tab in json.load(answer) if tab["type"] == "page"]
        page = Page(tabs[0]["webSocketDebuggerUrl"])
        try:
            yield page
        except BaseException:
            page.screenshot(folder / "failed.png")
            raise
        finally:
            page.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _lab_command(arguments: str) -> list[str]:
    """`make lab` in the environment that runs the tests, without letting make install anything."""
    environment = os.path.relpath(sys.prefix, ROOT)  # relative, since make cannot take spaces in a path
    return ["make", "lab", f"VENV={environment}", f"ARGS={arguments}", "-o", f"{environment}/.course-installed"]


@contextmanager
def lab(notebook: Path, folder: Path) -> Iterator[str]:
    """JupyterLab on a copy of the notebook in the tour's place; gives the address that `make lab` prints."""
    copy = folder / "root" / TOUR.relative_to(ROOT)
    copy.parent.mkdir(parents=True)
    shutil.copy(notebook, copy)
    settings = folder / "settings" / "@jupyterlab"
    for name, content in {
        "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
        "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    }.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(content))
    quiet = {f"JUPYTER_{kind}_DIR": str(folder / kind.lower()) for kind in ("CONFIG", "DATA", "RUNTIME")}
    quiet |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"), "JUPYTERLAB_WORKSPACES_DIR": str(folder / "spaces")}
    quiet |= {"SSLCORE_CHAPTERS": str(ROOT / "chapters"), "PYTHONPATH": str(ROOT)}
    quiet["SSLCORE_EVIDENCE"] = str(folder / "evidence")  # a check never rewrites what is committed
    # This may itself run under make, whose flags and variables the inner make must not inherit.
    dropped = {"MPLBACKEND", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    environment = {key: value for key, value in os.environ.items() if key not in dropped}
    port = _free_port()
    arguments = f"--no-browser --port {port} --ServerApp.root_dir={folder / 'root'}"
    arguments += " --LabApp.expose_app_in_browser=True"
    log = folder / "lab.log"
    with _started(_lab_command(arguments), log, cwd=ROOT, env=environment | quiet):
        address = re.compile(r"http://127\.0\.0\.1:\d+/lab\S*\?token=\w+")
        found = _until(lambda: address.search(log.read_text(errors="replace")), 120, "address with a token", log)
        _until(lambda: _answers(port), 30, "server behind the printed address", log)  # it listens a moment later
        yield found[0]


def _run_all(page: Page, address: str, seconds: float) -> None:
    page.call("Emulation.setFocusEmulationEnabled", enabled=True)  # a tab without a window never has the focus
    page.call("Page.navigate", url=address)
    _until(lambda: page.value(READY), 120, "open notebook with an idle kernel")
    page.value(CLEAR)
    assert not page.value(DONE)
    page.value(RUN_ALL)
    _until(lambda: page.value(DONE), seconds, "finished run of all cells")
    assert page.value(ERRORS) == []


def _moves_with_layer(page: Page, seconds: float = 30) -> bool:
    """Focus the layer slider, press an arrow key, and see whether the picture beside it becomes another one."""
    _until(lambda: page.value(FOCUS_SLIDER), 60, "slider labelled layer")
    before_value = page.value(FOCUS_SLIDER)
    before = _until(lambda: page.value(PICTURES), 60, "picture beside the slider")
    for key in ("ArrowLeft", "ArrowRight"):  # at one end of the scale one of them does nothing
        page.press(key)
        if page.value(FOCUS_SLIDER) != before_value:
            break
    else:
        pytest.fail("the layer slider does not move")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        now = page.value(PICTURES)
        if len(now) >= len(before) and now != before:  # shorter: the old picture is cleared, the new one not yet there
            return True
        time.sleep(0.2)
    return False


def _answers_to_clicks(page: Page, seconds: float = 30) -> bool:
    """Click the last picture at two places, as a person would, and see whether it becomes another one."""
    box = _until(lambda: page.value(LAST_PICTURE), 60, "clickable picture")
    for part in (0.1, 0.2):  # one of the two lies on another patch than the one shown
        place = {"x": box["left"] + part * box["width"], "y": box["top"] + 0.5 * box["height"]}
        for kind in ("mousePressed", "mouseReleased"):
            page.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **place)
        end = time.monotonic() + seconds / 2
        while time.monotonic() < end:
            if page.value(LAST_PICTURE)["source"] != box["source"]:
                return True
            time.sleep(0.2)
    return False


def _notebook(path: Path, *cells: str) -> Path:
    entries = [
        {"cell_type": "code", "id": f"cell-{n}", "metadata": {}, "source": cell, "outputs": [], "execution_count": None}
        for n, cell in enumerate(cells)
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.write_text(json.dumps({"cells": entries, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    return path


SLIDER = """
import io
import ipywidgets, matplotlib.pyplot as plt
from IPython.display import display
slider = ipywidgets.IntSlider(value=2, min=0, max=2, description="layer")
output = ipywidgets.Output()
def draw(*_):
    output.clear_output(wait=True)
    with output:
        plt.figure(figsize=(2, 2)); plt.imshow([[0, {layer}], [1, 2]]); plt.show()
slider.observe(draw, "value")
draw()
display(ipywidgets.VBox([slider, output]))
"""


@pytest.mark.parametrize("layer, moves", [("slider.value", True), ("1", False)], ids=["alive", "dead"])
def test_the_check_tells_a_live_slider_from_a_dead_one(layer, moves, tmp_path):
    notebook = _notebook(tmp_path / "tiny.ipynb", "import sslcore", SLIDER.format(layer=layer))
    with lab(notebook, tmp_path) as address, _page(tmp_path) as page:
        _run_all(page, address, seconds=120)
        assert _moves_with_layer(page, seconds=10) is moves


def test_server_asks_for_its_token(tmp_path):
    with lab(_notebook(tmp_path / "tiny.ipynb", "1"), tmp_path) as address:
        server, token = address.split("/lab")[0], address.split("token=")[1]
        assert "/lab/tree/chapters/00_start/tour.ipynb" in address
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{server}/api/contents", timeout=30)
        with urllib.request.urlopen(f"{server}/api/contents?token={token}", timeout=30) as answer:
            assert answer.status == 200


@pytest.mark.skipif(not TOUR.exists(), reason="chapters/00_start/tour.ipynb is not written yet")
def test_tour_runs_and_its_widgets_answer(tmp_path):
    with lab(TOUR, tmp_path) as address, _page(tmp_path) as page:
        _run_all(page, address, seconds=600)
        assert _moves_with_layer(page)
        assert _answers_to_clicks(page)
