"""The fault kit: services that misbehave on a schedule, to test your own code and graphs against.

Say what happens by a `Schedule`, and hand it to what your code calls: a `FaultyServer` on loopback, a `FaultyService`
for an ASGI server of yours, a `FaultyTransport` for httpx without sockets, or a `FaultyChat` for LangChain. Each lists
what it was asked. `tidegate.testing` adds pytest fixtures, a clock that is moved by hand, and crash points.
"""

from tidegate.resilience.faults.behaviours import FAULTS, Behaviour, Delay, Reply, RetryAfter
from tidegate.resilience.faults.chat import FaultyChat, Prompt
from tidegate.resilience.faults.course import Course, Script
from tidegate.resilience.faults.replies import Request
from tidegate.resilience.faults.schedule import During, Schedule
from tidegate.resilience.faults.server import FaultyServer
from tidegate.resilience.faults.service import FaultyService
from tidegate.resilience.faults.transport import FaultyTransport

__all__ = [
    "FAULTS",
    "Behaviour",
    "Course",
    "Delay",
    "During",
    "FaultyChat",
    "FaultyServer",
    "FaultyService",
    "FaultyTransport",
    "Prompt",
    "Reply",
    "Request",
    "RetryAfter",
    "Schedule",
    "Script",
]
