"""Settings -> triggers."""

from __future__ import annotations

import importlib
from typing import cast

from tidegate.errors import MissingExtra
from tidegate.settings.service import Trigger as TriggerSettings
from tidegate.triggers.door import Trigger

_MAKERS = {
    "folder": ("tidegate.triggers.folder", "FolderTrigger", "serve"),
    "cron": ("tidegate.triggers.cron", "CronTrigger", "serve"),
    "s3": ("tidegate.triggers.s3", "S3Trigger", "s3"),
    "queue": ("tidegate.triggers.queue", "QueueTrigger", "queue"),
}
"""By kind: module, class, and the extra that brings what the module imports. Webhooks are paths of the server."""


def open_trigger(settings: TriggerSettings) -> Trigger:
    """Make the trigger that these settings name; it begins when it is run.

    Raises:
        MissingExtra: a package that it needs is not installed.
        SettingsError: a setting is wrong.
    """
    module, name, extra = _MAKERS[settings.kind]
    try:
        made = getattr(importlib.import_module(module), name)(settings)
    except ImportError as error:
        raise MissingExtra(f"trigger {settings.name!r}", extra) from error
    return cast("Trigger", made)
