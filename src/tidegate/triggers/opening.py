"""Settings -> triggers."""

from __future__ import annotations

import importlib
from typing import Any, cast

from tidegate.errors import MissingExtra
from tidegate.settings.service import Trigger as TriggerSettings
from tidegate.triggers.door import Trigger
from tidegate.triggers.messages import Fetch

_MAKERS = {
    "folder": ("tidegate.triggers.folder.trigger", "FolderTrigger", "serve"),
    "cron": ("tidegate.triggers.cron.trigger", "CronTrigger", "serve"),
    "s3": ("tidegate.triggers.s3.trigger", "S3Trigger", "s3"),
    "queue": ("tidegate.triggers.queue.trigger", "QueueTrigger", "queue"),
}
"""By kind: module, class, and the extra that brings what the module imports. Webhooks are paths of the server."""


def open_trigger(settings: TriggerSettings, *, fetch: Fetch) -> Trigger:
    """Make the trigger that these settings name; it begins when it is run.

    `fetch` downloads the documents that messages of a queue name by URL: whoever sends them may be anybody.

    Raises:
        MissingExtra: a package that it needs is not installed.
        SettingsError: a setting is wrong.
    """
    module, name, extra = _MAKERS[settings.kind]
    options: dict[str, Any] = {"fetch": fetch} if settings.kind == "queue" else {}
    try:
        made = getattr(importlib.import_module(module), name)(settings, **options)
    except ImportError as error:
        raise MissingExtra(f"trigger {settings.name!r}", extra) from error
    return cast("Trigger", made)
