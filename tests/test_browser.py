"""A student's first minutes, in a real browser: open a lesson in JupyterLab, run it, move a slider."""

import base64
import contextlib
import io
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

ROOT = Path(__file__).parents[1]
SCREENSHOTS = ROOT / "screenshots"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SETTINGS = {
    # no question about official news, which would cover the notebook and ask the network
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # cells that are scrolled out of view stay in the page
    "notebook-extension/tracker": {"windowingMode": "none"},
}

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here: the browser tests were left out")

# The assertions have their own timeout, too short for a kernel that imports torch.
expect.set_options(timeout=120_000)


@dataclass
class Lab:
    """A running JupyterLab on a copy of the lessons."""

    address: str
    token: str
    folder: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder, home = tmp_path_factory.mktemp("course"), tmp_path_factory.mktemp("home")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    for plugin, value in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}"]
    private = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    private |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    environment = os.environ | {name: str(home / place) for name, place in private.items()}
    log = home / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(server, f"http://127.0.0.1:{port}/api", log)
            yield Lab(f"http://127.0.0.1:{port}", token, folder)
        finally:
            server.terminate()  # which ends its kernels too
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def opened(lab: Lab, browser: Browser) -> Iterator[Callable[[str], tuple[Page, Locator]]]:
    """A function that opens a notebook by its path: the page, and the notebook's part of it."""
    pages = []

    def open_notebook(name: str) -> tuple[Page, Locator]:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        pages.append(page)
        page.set_default_timeout(120_000)
        page.goto(f"{lab.address}/lab/tree/{name}?token={lab.token}&reset")
        notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        expect(notebook.locator(".jp-CodeCell").first).to_be_visible()
        _wait_until_idle(page)
        return page, notebook

    yield open_notebook
    for page in pages:
        page.close()


def test_slider_of_the_activations_lesson_changes_the_picture(opened):
    page, notebook = opened("notebooks/02_activations.ipynb")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = notebook.locator(".jp-CodeCell .jp-InputPrompt")
    expect(prompts.last).to_have_text(re.compile(r"\[\d+\]:"))  # [ ]: and [*]: are not finished
    _wait_until_idle(page)

    panel = notebook.locator(".jp-OutputArea-child", has=page.get_by_role("slider")).first
    slider, picture = panel.get_by_role("slider").first, panel.locator(".widget-output img").first
    expect(picture).to_be_visible()
    before, source, value = _pixels(picture), picture.get_attribute("src"), slider.get_attribute("aria-valuenow")

    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    expect(slider).not_to_have_attribute("aria-valuenow", value)
    expect(picture).not_to_have_attribute("src", source)
    _wait_until_idle(page)
    page.wait_for_timeout(500)  # values that were overtaken are skipped: look at the last picture
    after = _pixels(picture)

    picture.scroll_into_view_if_needed()
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "02_activations.png")
    expect(notebook.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
    assert after.shape != before.shape or np.abs(after - before).mean() > 1, "the picture hardly changed"


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    """Return when the server answers; fail with its log when it ends or stays silent for two minutes."""
    for _ in range(480):
        assert server.poll() is None, log.read_text()
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1).close()
            return
        time.sleep(0.25)
    pytest.fail("JupyterLab did not answer\n" + log.read_text())


def _wait_until_idle(page: Page) -> None:
    # The notebook's own indicator says idle before the kernel is connected; the status bar does not.
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()


def _pixels(picture: Locator) -> np.ndarray:
    data = picture.get_attribute("src").split("base64,", 1)[1]
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)
