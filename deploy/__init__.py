"""What watches a running service: dashboards, rules and alerts, and the programs that write them."""
