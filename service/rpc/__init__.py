"""gRPC calls: everything that handles a call, from the gate to its answer."""
