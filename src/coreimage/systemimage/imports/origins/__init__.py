"""Origins: from a feed of coreimage.toml to a file that can be made, known before it is made."""
