"""What all sections of the settings share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of tidegate.toml: an unknown name in it is an error, and nothing changes once it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
