"""The gRPC services. With `server`, the only package of the broker that imports grpc."""
