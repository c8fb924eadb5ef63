"""gRPC calls: everything that handles a call, from its interceptors to its answer."""
