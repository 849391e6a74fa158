"""Trying a policy before it bites: on what happened, on examples, and from what was seen. Pure."""
