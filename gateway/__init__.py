"""The gateway: REST in, gRPC out. It holds no keys and never touches Redis."""
