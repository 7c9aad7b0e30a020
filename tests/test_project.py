"""The project as a whole: what is declared agrees, the wheel is complete, the modules keep their order."""

import ast
import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")
LECTURES = (
    "layers activations occlusion saliency ascent adversarial deepdream inversion texture style faststyle".split()
)
MACHINERY = set("errors assets networks images photos models reading scores canvas optimize display".split())
MODULES = {path.stem: path for path in sorted((ROOT / "lecturelib").glob("*.py"))}
MODULES["panels"] = ROOT / "lecturelib" / "panels" / "__init__.py"
MODULES |= {f"panels.{name}": MODULES["panels"].with_name(f"{name}.py") for name in ("looking", "making")}


def run(*command: str, **options) -> str:
    """What the command printed, on both streams; fails with it when the command fails."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    assert done.returncode == 0, done.stdout
    return done.stdout


def imports(path: Path) -> set[str]:
    """The dotted names of all modules that a file imports, at the top or inside a function."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name} imports relatively"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own_imports(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    return {name.removeprefix("lecturelib.") for name in imports(path)} & MODULES.keys()


def files_of_the_repository() -> list[Path]:
    """What git has, or would add; in a copy without git, all files outside hidden folders."""
    if (ROOT / ".git").exists():
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT).split("\0")
        return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
    hidden = re.compile(r"\.|__pycache__")
    files = [path for path in ROOT.rglob("*") if path.is_file()]
    return [path for path in files if not any(map(hidden.match, path.relative_to(ROOT).parts[:-1]))]


def test_environment_yml_names_the_dependencies_of_pyproject():
    *conda, section = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert conda == [f"python{PROJECT['requires-python']}", "pip"]
    assert section["pip"][-1] == "-e ."
    assert sorted(section["pip"][:-1]) == sorted(PROJECT["dependencies"])


def test_lock_holds_every_dependency_in_a_version_that_pyproject_allows():
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([\w.+!]+)", LOCK, flags=re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)
    for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]:
        wanted = Requirement(line)
        versions = locked.get(canonicalize_name(wanted.name))
        assert versions, f"{wanted.name} is not in requirements.lock: make lock"
        assert all(wanted.specifier.contains(version) for version in versions), f"{line} against {versions}: make lock"


def test_lock_has_a_hash_for_every_package_and_no_address():
    entries = re.split(r"\n(?=\S)", LOCK.strip())
    assert len(entries) > 100
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert re.findall(r".*(?:://|@|--(?!hash)|file:|\.(?:org|com|net|io)\b|\+cpu|\+cu).*", LOCK) == []


def test_wheel_brings_the_networks_and_loads_them_without_the_checkout(tmp_path):
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path), cwd=ROOT)
    (wheel,) = tmp_path.glob("*.whl")
    venv.create(tmp_path / "empty", symlinks=os.name != "nt")
    python = tmp_path / "empty" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    purelib = run(str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    zipfile.ZipFile(wheel).extractall(purelib)
    # PYTHONPATH lends the dependencies; unlike a site folder it does not read the .pth that names the checkout.
    installed = os.pathsep.join(entry for entry in sys.path if entry.endswith("site-packages"))
    program = """
import lecturelib
from lecturelib import load_model
print(lecturelib.__file__)
for name in ("mini_alexnet", "mini_vgg"):
    load_model(name)
"""
    printed = run(str(python), "-c", program, cwd=tmp_path, env=os.environ | {"PYTHONPATH": installed})
    assert Path(printed.splitlines()[0]).is_relative_to(purelib), printed
    data = Path(purelib, "lecturelib", "data")
    shipped = {path.relative_to(data) for path in data.rglob("*") if path.is_file()}
    committed = {path.relative_to(ROOT / "data") for path in files_of_the_repository() if ROOT / "data" in path.parents}
    assert shipped == committed
    assert {Path("mini_alexnet.safetensors"), Path("mini_vgg.safetensors")} <= shipped


def test_readme_and_ci_use_targets_that_the_makefile_has():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    for document in ("README.md", "CONTRIBUTING.md", "environment.yml"):
        commands = set(re.findall(r"\bmake ([a-z]+)\b(?=[`\s])", " ".join(_code(ROOT / document))))
        assert commands <= targets, f"{document}: {commands - targets}"
    assert {"lab", "test"} <= set(re.findall(r"\bmake (\w+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    assert (ROOT / ".ci/run").read_text().splitlines()[-1] == "make test"
    assert os.name == "nt" or os.access(ROOT / ".ci/run", os.X_OK)


def test_import_prints_nothing_changes_nothing_and_stays_light():
    program = """
import sys, random, os
import numpy, torch, torchvision
opened = []
sys.addaudithook(lambda event, _: opened.append(event) if event.startswith("socket.") else None)
look = lambda: (torch.get_rng_state().sum(), torch.get_num_threads(), torch.is_grad_enabled(), random.getstate(),
                numpy.random.get_state()[1].sum(), sorted(os.environ), torch.get_default_dtype())
before = look()
import lecturelib
assert look() == before
assert not opened, opened
assert not {"ipywidgets", "matplotlib.pyplot", "sklearn", "skimage"} & sys.modules.keys()
"""
    assert run(sys.executable, "-c", program, cwd=ROOT) == ""


def test_modules_import_the_machinery_and_earlier_lectures_only():
    graph = {name: own_imports(path) for name, path in MODULES.items() if name != "__init__"}
    lecture: dict[str, int] = {}  # the number of the last lecture that a module needs; 0 for the machinery
    for name in TopologicalSorter(graph).static_order():  # raises where modules import in circles
        needed = max((lecture[used] for used in graph[name]), default=0)
        lecture[name] = LECTURES.index(name) + 1 if name in LECTURES else needed
        assert needed <= lecture[name], f"{name} needs the later lecture {LECTURES[needed - 1]}"
    assert {name for name, used in graph.items() if "widgets" in used} == {"panels.looking", "panels.making"}
    panels = {"panels", "panels.looking", "panels.making"}
    assert {name for name, used in graph.items() if panels & used} <= panels
    assert not [name for name in MACHINERY & lecture.keys() if lecture[name]], "the machinery needs a lecture"


@pytest.mark.parametrize(
    ("library", "owners"), [("PIL", {"images"}), ("matplotlib", {"display"}), ("ipywidgets", {"controls", "widgets"})]
)
def test_few_modules_speak_to_pillow_matplotlib_and_ipywidgets(library, owners):
    users = {name for name, path in MODULES.items() if library in {found.split(".")[0] for found in imports(path)}}
    assert users <= owners


def test_no_module_is_a_drawer_for_everything():
    names = {path.stem for path in (ROOT / "lecturelib").rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "common", "misc"}


def test_every_module_has_its_test():
    names = {name for name in MODULES if name != "__init__" and "." not in name}
    assert names <= {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}


def test_no_file_names_a_folder_of_the_machine_it_was_written_on():
    folders = re.compile(r"(?<![\w.])/(?:work|farm|root|home/\w+|Users/\w+)/\w+")
    found = []
    for path in files_of_the_repository():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        pictures = re.compile(r"[A-Za-z0-9+/=]{200,}")  # base64 has slashes, and so any path by chance
        found += [f"{path.name}: {match}" for match in folders.findall(pictures.sub("", text))]
    assert found == []


@pytest.mark.parametrize("arguments", [["check"], ["format", "--check"]])
def test_ruff_finds_nothing(arguments):
    run(sys.executable, "-m", "ruff", *arguments, "--no-cache", ".", cwd=ROOT)


def _code(path: Path) -> list[str]:
    """The indented and fenced lines and the `spans` of a document: what a reader would type."""
    text = path.read_text(encoding="utf-8")
    fenced = re.findall(r"```.*?\n(.*?)```", text, flags=re.DOTALL)
    return fenced + re.findall(r"^    .*$", text, flags=re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
