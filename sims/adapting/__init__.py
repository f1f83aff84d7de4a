"""Facts memorized in the weights of a pretrained backbone, and what that does to a rule it knew."""
