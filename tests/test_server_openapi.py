"""The HTTP interface against its own description: whatever schemathesis makes of it is answered as it says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.openapi.checks import (
    JsonSchemaError,
    UndefinedContentType,
    UndefinedStatusCode,
)

from tests.servers.service import Served, serving
from tidegate.server.problems import MEDIA_TYPE
