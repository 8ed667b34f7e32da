"""What runs unattended: a night from log to published lists, its gates, its records and its publication."""
