"""The paper's method: the mask, the operators behind every write, their losses, and PatModel, which brings them to a model."""
