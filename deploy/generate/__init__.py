"""Programs that write dashboards, rules, pictures and the bill of materials."""
