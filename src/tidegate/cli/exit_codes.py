"""What the command's exit code says."""

from __future__ import annotations

from tidegate import errors

OK = 0
UNEXPECTED = 1
USAGE = 2
DEGRADED = 3
WAITING = 4
FOUND = 20
INTERRUPTED = 130

EXIT_CODES: dict[type[errors.TidegateError], int] = {
    errors.SettingsError: USAGE,
    errors.ServiceError: 5,
    errors.ThreadError: USAGE,
    errors.ThreadNotFound: 6,
    errors.DocumentNotFound: 6,
    errors.DocumentMismatch: 7,
    errors.IncompatibleThread: 8,
    errors.CheckpointDamaged: 9,
    errors.SourceUnavailable: 10,
    errors.UnsupportedDocument: 11,
    errors.EmptyDocument: 12,
    errors.EncryptedDocument: 13,
    errors.BrokenDocument: 14,
    errors.DocumentTooLarge: 15,
    errors.NoTextInDocument: 16,
    errors.ThreadBusy: 17,
    errors.LeaseLost: 18,
    errors.StoreUnavailable: 19,
    errors.StoreError: 19,
    errors.StoreDamaged: 9,
    errors.QueueFull: 21,
    errors.EventInvalid: 22,
}
"""Codes of errors, which hold for subclasses too. Besides: 0 done, 1 unexpected error, 2 usage or settings,
3 degraded under `--fail-on-degraded`, 4 waiting for a circuit, 20 doctor found something, 130 interrupted."""


def exit_code(error: errors.TidegateError) -> int:
    """Return the code of an error."""
    return next((EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES), UNEXPECTED)
