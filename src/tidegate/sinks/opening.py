"""Settings -> sinks."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import cast

from tidegate.errors import MissingExtra
from tidegate.settings.service import Sink as SinkSettings
from tidegate.settings.service import Trigger as TriggerSettings
from tidegate.sinks.port import Sink

_MAKERS = {
    "webhook": ("tidegate.sinks.webhook", "WebhookSink", "serve"),
    "queue": ("tidegate.sinks.queue", "QueueSink", "queue"),
}
"""By kind: module, class, and the extra that brings what the module imports."""


def open_sink(settings: SinkSettings, triggers: Sequence[TriggerSettings]) -> Sink:
    """Make the sink that these settings name; `triggers` are those whose results it may get.

    Raises:
        MissingExtra: a package that it needs is not installed.
        SettingsError: a setting is wrong.
    """
    if settings.kind == "file":
        from tidegate.sinks.file import FileSink

        return FileSink(settings, [each for each in triggers if each.kind == "folder"])
    module, name, extra = _MAKERS[settings.kind]
    try:
        made = getattr(importlib.import_module(module), name)(settings)
    except ImportError as error:
        raise MissingExtra(f"sink {settings.name!r}", extra) from error
    return cast("Sink", made)
