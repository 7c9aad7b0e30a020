import sys
from pathlib import Path

from nbformat import from_dict
from nbformat.v4 import new_code_cell, new_notebook, new_output

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))

from tidy import STATE, VIEW, tidy


def view(name: str):
    return new_output("display_data", {VIEW: {"model_id": name}, "text/plain": name})


def stored():
    """A cell with a bar that has ended and a panel, and the widgets behind them."""
    state = {
        "bar": {"model_name": "HBoxModel", "state": {"children": ["IPY_MODEL_progress"], "layout": "IPY_MODEL_wide"}},
        "progress": {"model_name": "FloatProgressModel", "state": {}},
        "wide": {"model_name": "LayoutModel", "state": {}},
        "panel": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_slider", "IPY_MODEL_number"]}},
        "slider": {"model_name": "IntSliderModel", "state": {}},
        "number": {"model_name": "BoundedIntTextModel", "state": {}},
        "link": {
            "model_name": "LinkModel",
            "state": {"source": ["IPY_MODEL_slider", "value"], "target": ["IPY_MODEL_number", "value"]},
        },
        "stale": {"model_name": "LinkModel", "state": {"source": ["IPY_MODEL_progress", "value"]}},
    }
    cell = new_code_cell("run()", outputs=[view("bar"), new_output("stream", text="done"), view("panel")])
    return new_notebook(cells=[cell], metadata={"widgets": {STATE: from_dict({"state": state})}})


def test_bars_go_and_panels_stay_with_all_that_belongs_to_them():
    notebook = tidy(stored())
    kinds = [output.output_type for output in notebook.cells[0].outputs]
    assert kinds == ["stream", "display_data"]
    assert set(notebook.metadata.widgets[STATE].state) == {"panel", "slider", "number", "link"}


def test_a_tidy_notebook_stays_as_it_is():
    once = tidy(stored())
    assert tidy(once) == once
    assert tidy(new_notebook(cells=[])) == new_notebook(cells=[])
