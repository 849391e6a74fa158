"""What bodies mean: one module for each format, each with one reading or `Unreadable`."""
