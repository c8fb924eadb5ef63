"""
Files from which operators start the service, and in `generate` programs that write some of them.
"""
