"""Signing: the one place where signatures are made, and the policy that it keeps."""
