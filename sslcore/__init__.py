"""sslcore: objectives, backbones, views and probes for visual pre-training."""

__version__ = "0.1.0"
