"""Other style transfer methods to compare with: one file or folder each."""
