"""What stands between a step and a service that fails: breaker, guard, failure classes."""
