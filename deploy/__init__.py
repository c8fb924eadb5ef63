"""What watches a running service: dashboards, rules, alerts, and the programs that write them."""
