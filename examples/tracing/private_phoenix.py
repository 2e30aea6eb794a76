"""Arize Phoenix that keeps to itself: `phoenix/bin/python private_phoenix.py`, by the Python that has it installed.

Its private flags are set, whatever the environment says. PHOENIX_PORT, PHOENIX_GRPC_PORT and PHOENIX_WORKING_DIR are
yours, as are all others.
"""

import os
import runpy
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

PRIVATE = {
    "PHOENIX_HOST": "127.0.0.1",
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "PHOENIX_ALLOW_EXTERNAL_RESOURCES": "false",
    "PHOENIX_DISABLE_AGENT_ASSISTANT": "true",
    "PHOENIX_AGENTS_DISABLE_BASH": "true",
    "PHOENIX_AGENTS_DISABLE_GITHUB": "true",
    "PHOENIX_AGENTS_DISABLE_WEB_ACCESS": "true",
    "PHOENIX_ALLOWED_SANDBOX_PROVIDERS": "NONE",
    "PHOENIX_ENABLE_MCP_SERVER": "false",
}


def listen_on_loopback() -> None:
    """Hold the gRPC receiver to 127.0.0.1: it listens on all addresses, whatever PHOENIX_HOST says (20.26)."""
    grpc: Any = import_module("grpc.aio")

    def server(make: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        for name in ("add_insecure_port", "add_secure_port"):
            setattr(made, name, partial(add, getattr(made, name)))
        return made

    def add(port: Callable[..., int], address: str, *args: Any) -> int:
        return port(f"127.0.0.1:{address.rpartition(':')[2]}", *args)

    grpc.server = partial(server, grpc.server)


if __name__ == "__main__":
    os.environ.update(PRIVATE)
    listen_on_loopback()
    sys.argv[1:] = ["serve"]
    runpy.run_module("phoenix.server.main", run_name="__main__")
