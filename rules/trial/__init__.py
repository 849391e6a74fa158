"""A policy tried out: requests written in YAML, the tests in rules, and files of whole cases.

A written request takes the very path of one on the wire, canonical form included, and sends
nothing.
"""
