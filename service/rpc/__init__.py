"""All that knows a gRPC call."""
