"""Take progress bars that have ended out of stored notebooks, and the widgets that nothing shows any more.

python docs/tidy.py notebooks/*.ipynb

Run by `make notebooks`. Panels stay: their widgets are reached from an output.
"""

import json
import re
import sys
from pathlib import Path

import nbformat

VIEW, STATE = "application/vnd.jupyter.widget-view+json", "application/vnd.jupyter.widget-state+json"


def tidy(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook itself, without ended progress bars."""
    widgets = notebook.metadata.get("widgets", {}).get(STATE, {}).get("state", {})
    shown = set()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_bar(output, widgets)]
            shown |= {output.data[VIEW]["model_id"] for output in cell.outputs if VIEW in output.get("data", {})}
    kept = _reached(shown, widgets)
    for name in widgets.keys() - kept:
        del widgets[name]
    return notebook


def _is_bar(output: nbformat.NotebookNode, widgets: dict) -> bool:
    name = output.get("data", {}).get(VIEW, {}).get("model_id")
    return any(widgets.get(child, {}).get("model_name") == "FloatProgressModel" for child in _children(name, widgets))


def _children(name: str | None, widgets: dict) -> set[str]:
    """The widgets that a widget names: its children, its layout, its style."""
    return set(re.findall(r"IPY_MODEL_(\w+)", json.dumps(widgets.get(name, {}))))


def _reached(names: set[str], widgets: dict) -> set[str]:
    """These widgets, what they name, and what links them (links name widgets and are named by none)."""
    reached, waiting = set(), set(names)
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting |= _children(name, widgets) & widgets.keys()
    links = {name for name, each in widgets.items() if each.get("model_name") in {"LinkModel", "DirectionalLinkModel"}}
    return reached | {name for name in links if _children(name, widgets) <= reached}


def main(paths: list[str]) -> None:
    for path in map(Path, paths):
        nbformat.write(tidy(nbformat.read(path, as_version=4)), path)


if __name__ == "__main__":
    main(sys.argv[1:])
