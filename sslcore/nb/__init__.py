"""What a notebook needs around the ideas: setup, figure style, widgets, and running it without Jupyter."""

from sslcore.nb.figures import plot_attention, plot_same_object, show_image
from sslcore.nb.lesson import Setup, setup
from sslcore.nb.runner import run
from sslcore.nb.widgets import attention_explorer, knob, same_object_explorer

__all__ = [
    "Setup",
    "attention_explorer",
    "knob",
    "plot_attention",
    "plot_same_object",
    "run",
    "same_object_explorer",
    "setup",
    "show_image",
]
