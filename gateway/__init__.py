"""The gateway: REST in, gRPC out. It holds no keys and never touches Redis."""

from openline.engine import prefer_low_latency

prefer_low_latency()
