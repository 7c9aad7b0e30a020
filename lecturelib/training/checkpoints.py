"""Checkpoints that survive a kill at any moment."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch

from lecturelib.errors import CheckpointError


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """A path to write to, for what then takes the place of `path` in one step: nobody ever finds half a file there."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def save_checkpoint(state: dict, path: str | os.PathLike) -> None:
    """Replace the checkpoint at `path` in one step: a reader finds the old one or the new one."""
    with replacing(path) as temporary:
        torch.save(state, temporary)


def load_checkpoint(path: str | os.PathLike, *, settings: dict | None = None) -> dict | None:
    """The state saved at `path`, or None where nothing was saved.

    settings: of the training that goes on from here; it also removes what killed saves have left in the folder.

    Raises `CheckpointError` when the file is damaged, or was made with other `settings`: it names those that differ.
    """
    path = Path(path)
    if settings is not None:  # who only reads may do so beside a training that is saving
        for stray in path.parent.glob("*.partial"):
            stray.unlink(missing_ok=True)  # several processes may be starting
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a damaged file
        raise CheckpointError(
            f"the checkpoint {path.name} cannot be read",
            received=f"{path.stat().st_size} bytes ({type(error).__name__})",
            do="move it away to start anew",
        ) from error
    if settings is None:
        return state
    saved = state.get("settings", {})
    differing = [
        f"{key}: {saved.get(key)!r}, now {settings.get(key)!r}"
        for key in sorted({*saved, *settings})
        if saved.get(key) != settings.get(key)
    ]
    if differing:
        raise CheckpointError(
            f"the checkpoint {path.name} was made with other settings",
            received="; ".join(differing),
            do="use the settings above, or another folder",
        )
    return state


def settings_of(recipe: object) -> dict:
    """A recipe, a dataclass, as a table of what files can keep: tuples become lists."""
    return json.loads(json.dumps(asdict(recipe)))
