"""What the operator's computer remembers: a cache that can be lost, and receipts."""
