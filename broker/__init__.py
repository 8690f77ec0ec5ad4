"""The broker: holds executors' streams, takes commands from callers, and brings the two together."""

from openline.engine import prefer_low_latency

prefer_low_latency()
