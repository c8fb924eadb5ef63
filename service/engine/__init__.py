"""The sessions and their steps; synchronous, without asyncio, gRPC, protobuf or a store."""
