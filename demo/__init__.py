"""The whole of openline in one box: a small cluster, two brokers, a gateway and something to try."""
