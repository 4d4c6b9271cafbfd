"""What a notebook needs around the ideas: setup, figure style, widgets, and running it without Jupyter."""

from sslcore.nb.lesson import Setup, setup
from sslcore.nb.runner import run

__all__ = ["Setup", "setup", "run"]
