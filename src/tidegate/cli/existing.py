"""Commands for threads that are there already make no files where there are none."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from tidegate.checkpointers import locate
from tidegate.settings import Settings


def existing(options: Mapping[str, str]) -> Settings:
    """Read the settings; where no thread was ever kept, look at an empty store instead of making one."""
    settings = Settings.read(**options)
    path = locate(settings.checkpoints).checkpoints
    if path is None or path.exists() or not path.parent.is_dir():
        return settings
    typer.echo(f"{path} does not exist yet; `tidegate run` makes it, --checkpoints names another", err=True)
    return settings.model_copy(update={"checkpoints": "memory:"})
