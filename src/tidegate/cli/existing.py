"""Commands for threads that are there already make no files, and no tables, where there are none."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.checkpointers import Location, locate
from tidegate.cli.notices import notice
from tidegate.settings import Settings


def existing(options: Mapping[str, str]) -> Settings:
    """Read the settings; where no thread was ever kept, look at an empty store instead of making one."""
    settings = Settings.read(**options)
    if (missing := _missing(locate(settings.checkpoints))) is None:
        return settings
    notice(f"{missing} does not exist yet; `tidegate run` makes it, --checkpoints names another")
    return settings.model_copy(update={"checkpoints": "memory:"})


def _missing(location: Location) -> str | None:
    if location.server is not None:
        from tidegate.store.postgres_server import is_prepared

        # Whoever uses the saver alone has the second one.
        if is_prepared(location.server, "tidegate_migrations", "checkpoint_migrations"):
            return None
        return f"Tidegate's part of {location.server.shown}, schema {location.server.schema},"
    path = location.checkpoints
    return None if path is None or path.exists() or not path.parent.is_dir() else str(path)
