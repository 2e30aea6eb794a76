"""Recognisers: what finds the people, organisations, places, dates and sums of money that a document names."""

from __future__ import annotations

import logging
from typing import Literal

from tidegate.errors import MissingExtra, SettingsError
from tidegate.services.recognisers.spacy_model import find_model
from tidegate.services.recognisers.with_rules import RulesRecogniser
from tidegate.services.recognisers.with_spacy import SpacyRecogniser

__all__ = ["RulesRecogniser", "SpacyRecogniser", "open_recogniser"]

_log = logging.getLogger(__name__)


def open_recogniser(kind: Literal["auto", "spacy", "rules"] = "auto") -> SpacyRecogniser | RulesRecogniser:
    """Return the recogniser asked for; `auto` is spaCy where it is installed and its model is sound, else rules.

    Reads the model's 15 MB from disk to check them, and imports nothing of spaCy yet.

    Raises:
        MissingExtra: `spacy` was asked for and is not installed.
        SettingsError: `spacy` was asked for and its model is not the official one.
    """
    if kind == "rules":
        return RulesRecogniser()
    try:
        return SpacyRecogniser(find_model())
    except MissingExtra:
        if kind == "spacy":
            raise
    except SettingsError:
        if kind == "spacy":
            raise
        _log.warning("entities are recognised by rules alone, since the spaCy model is refused")
    return RulesRecogniser()
