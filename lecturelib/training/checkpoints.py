"""Checkpoints that survive a kill at any moment."""

import os
from pathlib import Path

import torch

from lecturelib.errors import CheckpointError


def save_checkpoint(state: dict, path: str | os.PathLike) -> None:
    """Replace the checkpoint at `path` in one step: a reader finds the old one or the new one, never half of one."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_checkpoint(path: str | os.PathLike, *, settings: dict | None = None) -> dict | None:
    """The state saved at `path`, or None where nothing was saved; removes what a killed save left beside it.

    Raises `CheckpointError` when the file is damaged, or was made with other `settings`: it names those that differ.
    """
    path = Path(path)
    for stray in path.parent.glob(f"{path.name}.*.partial"):
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
