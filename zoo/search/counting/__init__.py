"""Count the operations of pairings on the meta device, and keep the counts."""
