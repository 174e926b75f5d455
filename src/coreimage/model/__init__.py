"""The nouns that two or more stages share: frozen dataclasses, pure, standard library only.

In and out: values, and the JSON and text forms of the wire formats. Nothing is written.
"""
