"""The broker: holds executors' streams, takes commands from callers, and brings the two together."""
