"""Traces: how a request's way is told as spans, from the gateway to the executor's process.

A traceparent is text that travels in our messages (`traceparent`); `spans` begins and ends spans; `calls` has the
conventions for calls; `exporting` starts what sends them. Only `spans` and `exporting` know OpenTelemetry.
"""
