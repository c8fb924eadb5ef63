"""Real load balancers before real replicas: `make balancers-test`."""
