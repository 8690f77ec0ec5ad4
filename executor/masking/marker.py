"""What stands in the place of what was masked."""

# Like kubectl's own <none>; a scalar in YAML without quotes, and nothing to escape in JSON.
MARKER = b"<masked>"
