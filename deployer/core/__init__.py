"""Plain data and protocols that everything else speaks. Standard library only."""
