"""The executor: holds the line from a cluster to a broker and runs the real kubectl for it."""
