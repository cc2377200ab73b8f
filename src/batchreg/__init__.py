"""AWS Batch with private container registries."""

__version__ = "0.2.0"
