"""What editors are told of the policy language."""
