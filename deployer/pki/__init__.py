"""Keys, passwords and our own certificate authority: what is made once, for the bundle."""
