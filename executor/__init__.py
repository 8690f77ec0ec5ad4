"""The executor: holds the line from a cluster to a broker and runs the real kubectl for it."""

from openline.engine import prefer_low_latency

prefer_low_latency()
