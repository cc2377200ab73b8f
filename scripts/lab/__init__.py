"""Real parts of an AWS account on this machine: an instance, its agent, an engine, a registry."""
