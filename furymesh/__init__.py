"""furymesh: peer-to-peer chunked swarm downloads."""

__version__ = "0.1.0"
