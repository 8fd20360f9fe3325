"""Model families as data: who writes to the residual stream, who reads it, which norms stand on it. No torch."""
