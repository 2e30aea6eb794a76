"""The folder trigger: what lies there, what is told of it, and what is moved away."""
