"""For tests of code that uses Tidegate, and of graphs of your own: a clock moved by hand, and death at a named point.

`pytest_plugins = ["tidegate.testing.fixtures"]` brings them as pytest fixtures, with the services that misbehave of
`tidegate.resilience.faults`.
"""

from tidegate.testing.clock import ManualClock
from tidegate.testing.crash import Fuse, crash_at, killed_at

__all__ = ["Fuse", "ManualClock", "crash_at", "killed_at"]
