"""Packages: what they say, in archives, in trees and to others."""
