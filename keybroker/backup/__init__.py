"""Backups of a workspace: taken while `up` runs, sealed, checked without being restored, restored.

A backup holds every key of the workspace, so it is never written in the clear. What a restored
workspace must not bring back (open approvals, sessions) is ended before it can be used.
"""
