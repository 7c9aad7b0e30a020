"""A private JupyterLab with copies of the lessons and a browser in it, for the tests and benchmarks of panels."""

import ast
import contextlib
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from playwright.sync_api import Browser, Locator, Page, Playwright, expect

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SETTINGS = {
    # no question about official news, which would cover the notebook and ask the network
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # cells that are scrolled out of view stay in the page
    "notebook-extension/tracker": {"windowingMode": "none"},
}

# The assertions have their own timeout, too short for a kernel that imports torch.
expect.set_options(timeout=120_000)


def launch(playwright: Playwright) -> Browser:
    return playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=FLAGS)


@dataclass
class Lab:
    """A running JupyterLab on a copy of the lessons."""

    address: str
    token: str
    folder: Path

    def open(self, browser: Browser, name: str) -> tuple[Page, Locator]:
        """A page with the notebook `name`, and the notebook's part of the page."""
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(f"{self.address}/lab/tree/{name}?token={self.token}&reset")
        notebook = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden)")
        expect(notebook.locator(".jp-CodeCell").first).to_be_visible()
        wait_until_idle(page)
        return page, notebook

    def end_kernels(self) -> None:
        """A kernel with torch needs nearly a gigabyte: none stays behind."""
        for kernel in json.loads(self._ask("GET", "api/kernels")):
            self._ask("DELETE", f"api/kernels/{kernel['id']}")

    def _ask(self, method: str, path: str) -> bytes:
        headers = {"Authorization": f"token {self.token}"}
        request = urllib.request.Request(f"{self.address}/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()


@contextmanager
def serve(folder: Path, *, budget: float = 1.0) -> Iterator[Lab]:
    """JupyterLab in an empty folder, with the lessons in `notebooks` and, in `panels`, what their panels need of them.

    budget: the BUDGET of all copies.
    """
    _copy_lessons(folder / "course", budget)
    home = folder / "home"
    for plugin, value in SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    token = secrets.token_hex(16)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}", "--allow-root"]
    command += [f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder / 'course'}"]
    private = {"JUPYTERLAB_SETTINGS_DIR": "settings", "JUPYTERLAB_WORKSPACES_DIR": "workspaces"}
    private |= {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    environment = os.environ | {name: str(home / place) for name, place in private.items()}
    log = home / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            _wait_for(server, f"http://127.0.0.1:{port}/api", log)
            yield Lab(f"http://127.0.0.1:{port}", token, folder / "course")
        finally:
            server.terminate()  # which ends its kernels too
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def run_all(page: Page, notebook: Locator) -> None:
    """Run all cells, wait for the last one, and fail with the first error."""
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    prompts = notebook.locator(".jp-CodeCell .jp-InputPrompt")
    waiting = prompts.filter(has_text="*")
    expect(waiting.first).to_be_visible()
    expect(waiting).to_have_count(0, timeout=600_000)
    require_no_error(notebook)
    expect(prompts.last).to_have_text(re.compile(r"\[\d+\]:"))
    wait_until_idle(page)


def require_no_error(notebook: Locator) -> None:
    """Fail with the text of the first traceback that the notebook shows."""
    tracebacks = notebook.locator(".jp-OutputArea-output", has_text="Traceback (most recent call last)")
    assert tracebacks.count() == 0, tracebacks.first.inner_text()


def wait_until_idle(page: Page) -> None:
    # The notebook's own indicator says idle before the kernel is connected; the status bar does not.
    expect(page.get_by_role("button", name="Python 3 (ipykernel) | Idle")).to_be_visible()


def _copy_lessons(folder: Path, budget: float) -> None:
    for part in ("notebooks", "panels"):
        (folder / part).mkdir(parents=True)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        text = re.sub(r'(BUDGET = \\"\w+\\", )1\.0', rf"\g<1>{budget}", path.read_text(encoding="utf-8"))
        (folder / "notebooks" / path.name).write_text(text, encoding="utf-8")
        notebook = nbformat.reads(text, as_version=4)
        notebook.cells = needed_by_panels(notebook)
        nbformat.write(notebook, folder / "panels" / path.name)


def needed_by_panels(notebook: NotebookNode) -> list[NotebookNode]:
    """The cells tagged `panel` and those that define the names which they need, directly or not."""
    cells, needed = [], set()
    for cell in reversed([cell for cell in notebook.cells if cell.cell_type == "code"]):
        made, used = _names(ast.parse(cell.source))
        if "panel" in cell.metadata.get("tags", ()) or made & needed:
            cells.insert(0, cell)
            needed = needed - made | used
    return cells


def _names(program: ast.AST) -> tuple[set[str], set[str]]:
    """The names that a program makes, and those that it uses without making them."""
    made, used, inner = set(), set(), set()
    for node in ast.walk(program):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).partition(".")[0])
        elif isinstance(node, ast.arg):
            inner.add(node.arg)
        elif isinstance(node, ast.comprehension):
            inner |= {part.id for part in ast.walk(node.target) if isinstance(part, ast.Name)}
    return made - inner, used - made - inner


def _wait_for(server: subprocess.Popen, address: str, log: Path) -> None:
    """Return when the server answers; fail with its log when it ends or stays silent for two minutes."""
    for _ in range(480):
        if server.poll() is not None:
            break
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=1).close()
            return
        time.sleep(0.25)
    raise TimeoutError("JupyterLab did not answer\n" + log.read_text())
