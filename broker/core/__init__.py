"""Decisions without I/O: no grpc, no redis, no clock, no tasks. `now` is an argument, what to do is returned."""
