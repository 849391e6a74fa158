"""`make bench`: what a call costs, beside stock mitmdump, in one run.

Machines are noisy: only figures of one run are compared with each other, and those that compete are
measured in turns (A B A B ...), block by block.
"""
