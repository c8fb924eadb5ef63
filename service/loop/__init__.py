"""Carries out what the engine decides: asyncio, threads and the store around it."""
