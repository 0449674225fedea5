"""Names: the stack's records at the vendors of its zones, and whether the world sees them."""
