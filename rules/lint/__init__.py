"""What is odd about a policy that loads: findings, each proved by a call that shows it.

Nothing here decides anything; `rules.lint.check` is the way in.
"""
