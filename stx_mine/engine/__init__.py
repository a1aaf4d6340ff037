"""Engines run independent tasks: the task decides what, the engine where."""
