"""What operators see of the running program: numbers, traces, lines of a log, health.

Nothing here decides anything, and nothing that fails here stops a call.
"""
